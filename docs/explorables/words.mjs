// What an explorable writes outside of its own controls: beside a field, and below its figure.

let notes = 0;

/** Say beside a field what it takes, until it is called with no words. */
export function beside(field, words = "") {
  document.getElementById(field.getAttribute("aria-describedby"))?.remove();
  field.removeAttribute("aria-describedby");
  if (!words) return;
  const note = document.createElement("strong");
  note.id = `explorable-note-${++notes}`;
  note.className = "wrong";
  note.textContent = words;
  (field.closest("label") ?? field).after(note);
  field.setAttribute("aria-describedby", note.id);
}

/** Let the caption of a figure follow what is played in it. */
export function caption(element, words) {
  const below = element.closest("figure")?.querySelector("figcaption");
  if (below) below.textContent = words;
}
