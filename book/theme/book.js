// What a reader sets: the theme, the language of cards and labels, the menu of a narrow window. It stays in the browser.
const html = document.documentElement;

function keep(key, value) {
  try { localStorage.setItem("parallel-lab-" + key, value); } catch { /* a browser that keeps nothing still reads */ }
}

function showTheme() {
  const dark = html.dataset.theme === "dark";
  html.dataset.jpThemeLight = String(!dark);
  document.getElementById("theme").setAttribute("aria-pressed", String(dark));
}

function showLanguage() {
  const language = html.dataset.language;
  for (const button of document.querySelectorAll("button[data-language]"))
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  const field = document.getElementById("q");
  field.placeholder = field.dataset[language === "zh" ? "zh" : "en"];
}

document.getElementById("theme").addEventListener("click", () => {
  html.dataset.theme = html.dataset.theme === "dark" ? "light" : "dark";
  keep("theme", html.dataset.theme);
  showTheme();
});

for (const button of document.querySelectorAll("button[data-language]"))
  button.addEventListener("click", () => {
    html.dataset.language = button.dataset.language;
    keep("language", html.dataset.language);
    showLanguage();
    document.dispatchEvent(new Event("language"));
  });

document.getElementById("menu").addEventListener("click", (event) => {
  const open = document.getElementById("navigation").classList.toggle("open");
  event.currentTarget.setAttribute("aria-expanded", String(open));
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, textarea")) return;
  event.preventDefault();
  document.getElementById("q").focus();
});

// What scrolls sideways must be reached by keyboard; what fits needs no stop.
function reachable() {
  for (const box of document.querySelectorAll("pre, .wide"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
}
reachable();
addEventListener("resize", reachable);
document.addEventListener("toggle", reachable, true); // a `details` that opens

// An anchor inside a closed `details` opens it; one in the language that is hidden shows both, this once.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.closest(html.dataset.language === "en" ? ".zh" : html.dataset.language === "zh" ? ".en" : ".none")) {
    html.dataset.language = "both";
    showLanguage();
  }
  for (let box = target?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
if (location.hash) openTarget();
showTheme();
showLanguage();
// The chapter that one reads stands in view in the list of contents.
const current = document.querySelector('#navigation [aria-current="page"]');
if (current) document.getElementById("navigation").scrollTop = Math.max(0, current.offsetTop - 200);
