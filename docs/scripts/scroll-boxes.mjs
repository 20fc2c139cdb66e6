// What can be scrolled sideways can be scrolled from the keyboard too: wide tables and code get a
// place in the order of the Tab key while they are wider than the window. `document$` is the
// theme's: it also tells of pages that are opened without loading.

function update() {
  const boxes = [...document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")];
  // All are measured before one is changed, so that the page is laid out once.
  const wide = boxes.map((box) => box.scrollWidth > box.clientWidth);
  for (const [index, box] of boxes.entries()) {
    if (wide[index]) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

document$.subscribe(() => requestAnimationFrame(update));
addEventListener("resize", update);
document.fonts.addEventListener("loadingdone", update); // another font is another width
