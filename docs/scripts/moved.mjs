// A link may name a section that its page no longer has: say so, and where the section is now.

const { base } = JSON.parse(document.getElementById("__config").textContent);
const root = new URL(base, location); // now: instant navigation changes the location, not the base
let visits = 0;

function missing() {
  try {
    const id = decodeURIComponent(location.hash.slice(1));
    if (id.toLowerCase() === "top") return ""; // the top of any page, says HTML
    return document.getElementById(id) ? "" : id;
  } catch {
    return ""; // what is no text names no section
  }
}

async function pageOf(id) {
  if (root.protocol === "file:") return undefined; // nothing can be fetched from a disk
  const anchors = await (await fetch(new URL("anchors.json", root))).json();
  return new Map(Object.entries(anchors)).get(id);
}

async function titleOf(page) {
  const html = await (await fetch(new URL(page, root))).text();
  return new DOMParser().parseFromString(html, "text/html").title.split(" - ")[0]; // " - Reproducibility"
}

async function explain() {
  const visit = ++visits;
  document.querySelector(".moved")?.remove();
  const id = missing();
  const page = id && (await pageOf(id).catch(() => undefined));
  const title = page && (await titleOf(page).catch(() => page));
  if (!id || visit !== visits) return; // all is well, or the reader has gone on
  const link = document.createElement("a");
  const text = document.createElement("p");
  const box = document.createElement("div");
  const known = page !== undefined;
  const words = id.replace(/[^\p{L}\p{N}]+/gu, " ");
  link.href = known ? `${new URL(page, root)}#${id}` : `?q=${encodeURIComponent(words)}`;
  link.textContent = known ? title : "Search for it";
  text.append(`This page has no section “${id}”${known ? " any more. It is now here: " : ". "}`, link, ".");
  box.className = "moved admonition note";
  box.append(text);
  document.querySelector("article").prepend(box);
}

document$.subscribe(explain);
addEventListener("hashchange", explain);
