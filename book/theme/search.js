// The search: loads the files of the index that its words need, and ranks what has all of them.
const book = {
  waiting: new Map(), loaded: new Map(),
  take(name, content) { this.loaded.set(name, content); },
  load(name) { // files are scripts: a browser loads them from a folder on disk too
    if (this.loaded.has(name)) return Promise.resolve(this.loaded.get(name));
    if (!this.waiting.has(name))
      this.waiting.set(name, new Promise((done) => {
        const script = document.createElement("script");
        script.src = `search/${name}.js`;
        script.onload = script.onerror = () => done(this.loaded.get(name) ?? null);
        document.head.append(script);
      }));
    return this.waiting.get(name);
  },
};
const SHOWN = 20, DOCUMENTS = 25, CHINESE = 64, AROUND = 180;
const said = document.getElementById("said"), results = document.getElementById("results");

// The same cut as in tools/book/search.py.
function words(text) {
  const found = [];
  for (const piece of text.toLowerCase().match(/[a-z0-9]+|[\u3400-\u9fff]+/g) ?? [])
    if (piece.charCodeAt(0) < 128) found.push(piece.slice(0, 24));
    else for (let at = 0; at < Math.max(1, piece.length - 1); at++) found.push(piece.slice(at, at + 2));
  return [...new Set(found)];
}

const shelf = (word) => word.charCodeAt(0) < 128 ? `w-${word.slice(0, 2)}` : `z-${word.codePointAt(0) % CHINESE}`;

// Documents with a word, or with one that begins with it, and what they count.
async function having(word, files) {
  const named = (name) => (word.length > 1 || word.charCodeAt(0) > 127 ? name === shelf(word) : name.startsWith(`w-${word}`));
  const names = files.filter(named); // a file that is not there would be an error in the console
  const counts = new Map();
  for (const name of names)
    for (const [other, found] of Object.entries((await book.load(name)) ?? {}))
      if (other.startsWith(word))
        for (let at = 0; at < found.length; at += 2)
          counts.set(found[at], Math.max(counts.get(found[at]) ?? 0, found[at + 1] * (other === word ? 2 : 1)));
  return counts;
}

async function search(query) {
  const { files, stop } = (await book.load("all")) ?? { files: [], stop: [] };
  const asked = words(query).filter((word) => !stop.includes(word));
  if (!asked.length) return null;
  const each = await Promise.all(asked.map((word) => having(word, files)));
  const ranked = [];
  for (const [place] of each[0])
    if (each.every((counts) => counts.has(place)))
      ranked.push([place, each.reduce((sum, counts) => sum + counts.get(place), 0)]);
  ranked.sort((one, other) => other[1] - one[1] || one[0] - other[0]);
  return ranked;
}

function marked(text, query) {
  const box = document.createElement("p"), asked = query.toLowerCase().match(/[a-z0-9]+|[\u3400-\u9fff]+/g) ?? [];
  const pattern = new RegExp(`(${asked.filter((word) => !book.loaded.get("all")?.stop.includes(word)).join("|") || "$^"})`, "gi");
  for (const [at, piece] of text.split(pattern).entries()) {
    if (at % 2 === 0) { box.append(piece); continue; }
    const mark = document.createElement("mark");
    mark.textContent = piece;
    box.append(mark);
  }
  return box;
}

// The piece of a text in which the first of the words stands.
function piece(text, query) {
  const low = text.toLowerCase(), places = words(query).map((word) => low.indexOf(word)).filter((at) => at >= 0);
  const start = Math.max(0, Math.min(...places, low.length) - 60), from = start > 0 ? text.indexOf(" ", start) + 1 || start : 0;
  const begin = places.length && from <= Math.min(...places) ? from : places.length ? start : 0;
  return (begin ? "… " : "") + text.slice(begin, begin + AROUND) + (begin + AROUND < text.length ? " …" : "");
}

function line([address, page, chinese, heading, text], query) {
  const item = document.createElement("li"), link = document.createElement("a"), trail = document.createElement("p");
  const title = (html.dataset.language === "zh" && chinese) || page;
  link.href = address;
  link.textContent = heading || title;
  trail.className = "trail";
  trail.textContent = heading ? title : "";
  item.append(link, trail, marked(piece(text, query), query));
  return item;
}

const spoken = (key, values = {}) => {
  const text = said.dataset[(html.dataset.language === "zh" ? "zh" : "en") + key];
  return text.replace("{n}", values.n);
};

async function answer() {
  const query = new URLSearchParams(location.search).get("q") ?? "";
  document.getElementById("q").value = query;
  said.textContent = spoken("Searching");
  const ranked = await search(query);
  said.textContent = ranked === null ? spoken("Type") : ranked.length ? spoken("Found", { n: ranked.length }) : spoken("Nothing");
  const best = (ranked ?? []).slice(0, SHOWN);
  const shelves = await Promise.all(best.map(([place]) => book.load(`d-${Math.floor(place / DOCUMENTS)}`)));
  results.replaceChildren(...best.map(([place], at) => line(shelves[at][place % DOCUMENTS], query)));
}

document.addEventListener("language", answer);
answer();
