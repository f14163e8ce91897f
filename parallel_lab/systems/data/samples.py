"""Short texts in five languages, written for this course: one to learn from, and lines of another one as a test."""

LEARN = {
    "en": """\
The harbor wakes before the town. Fishermen carry their nets to the boats while the lamps are still burning
along the quay, and the first bakery opens its door to them. By eight o'clock the market is full: people look
for bread, apples, cheese and fresh fish, and they talk about the weather as if nobody had ever seen rain
before. Children walk to school in small groups. In the afternoon the streets become quiet, because most of
the shops are closed and everyone who can stays inside. When the sun goes down, the boats return, and the same
people who left in the dark come home with what the sea has given them that day. Nothing here is new, and that
is what the visitors like about it.""",
    "de": """\
Der Hafen erwacht vor der Stadt. Die Fischer tragen ihre Netze zu den Booten, während am Kai noch die Lampen
brennen, und die erste Bäckerei öffnet ihnen die Tür. Um acht Uhr ist der Markt voll: Die Leute suchen Brot,
Äpfel, Käse und frischen Fisch, und sie reden über das Wetter, als hätte noch niemand Regen gesehen. Kinder
gehen in kleinen Gruppen zur Schule. Am Nachmittag werden die Straßen still, weil die meisten Läden
geschlossen sind und jeder, der kann, zu Hause bleibt. Wenn die Sonne untergeht, kehren die Boote zurück, und
dieselben Menschen, die im Dunkeln aufgebrochen sind, kommen mit dem heim, was ihnen das Meer an diesem Tag
gegeben hat. Nichts ist hier neu, und das mögen die Besucher.""",
    "fr": """\
Le port se réveille avant la ville. Les pêcheurs portent leurs filets vers les bateaux pendant que les lampes
brûlent encore le long du quai, et la première boulangerie leur ouvre sa porte. À huit heures, le marché est
plein : les gens cherchent du pain, des pommes, du fromage et du poisson frais, et ils parlent du temps comme
si personne n'avait jamais vu la pluie. Les enfants vont à l'école par petits groupes. L'après-midi, les rues
deviennent calmes, parce que la plupart des magasins sont fermés et que ceux qui le peuvent restent chez eux.
Quand le soleil se couche, les bateaux reviennent, et les mêmes personnes qui sont parties dans la nuit
rentrent avec ce que la mer leur a donné ce jour-là.""",
    "es": """\
El puerto se despierta antes que la ciudad. Los pescadores llevan sus redes a los barcos mientras las lámparas
todavía arden a lo largo del muelle, y la primera panadería les abre la puerta. A las ocho el mercado está
lleno: la gente busca pan, manzanas, queso y pescado fresco, y habla del tiempo como si nadie hubiera visto
nunca la lluvia. Los niños van a la escuela en grupos pequeños. Por la tarde las calles se quedan tranquilas,
porque la mayoría de las tiendas están cerradas y quien puede se queda en casa. Cuando se pone el sol, los
barcos regresan, y las mismas personas que salieron en la oscuridad vuelven con lo que el mar les ha dado ese
día. Nada es nuevo aquí, y eso es lo que gusta a los visitantes.""",
    "zh": """\
港口比城市醒得早。码头上的灯还亮着，渔民们就把渔网搬到船上，第一家面包店也为他们开了门。八点钟的时候，市场上已经
挤满了人：大家在找面包、苹果、奶酪和新鲜的鱼，一边买一边谈论天气，好像从来没有人见过下雨一样。孩子们三五成群地去
上学。到了下午，街道安静下来，因为大多数商店都关了门，能留在家里的人都留在家里。太阳落山的时候，船只陆续回来，那
些在黑暗中出发的人，带着大海这一天给他们的东西回家。这里没有什么新鲜事，而游客喜欢的正是这一点。""",
}

TEST = {
    "en": """\
The train was late again this morning
She has written three letters and sent none of them
We could not find the key, so we waited in the garden
There is a small library behind the old bridge
Nobody knows how long the repair will take""",
    "de": """\
Der Zug hatte heute Morgen wieder Verspätung
Sie hat drei Briefe geschrieben und keinen abgeschickt
Wir konnten den Schlüssel nicht finden und warteten im Garten
Hinter der alten Brücke gibt es eine kleine Bücherei
Niemand weiß, wie lange die Reparatur dauern wird""",
    "fr": """\
Le train était encore en retard ce matin
Elle a écrit trois lettres et n'en a envoyé aucune
Nous ne trouvions pas la clé, alors nous avons attendu dans le jardin
Il y a une petite bibliothèque derrière le vieux pont
Personne ne sait combien de temps la réparation va durer""",
    "es": """\
El tren llegó tarde otra vez esta mañana
Ella ha escrito tres cartas y no ha enviado ninguna
No encontrábamos la llave, así que esperamos en el jardín
Hay una pequeña biblioteca detrás del puente viejo
Nadie sabe cuánto tiempo durará la reparación""",
    "zh": """\
今天早上火车又晚点了
她写了三封信，可是一封也没有寄出去
我们找不到钥匙，只好在花园里等着
老桥后面有一个小小的图书馆
没有人知道修理要花多长时间""",
}
