// The button that copies a block of code. The theme's own script measures each block after it has
// added a button, which holds a long page for half a second; this one measures nothing. What a press
// does is the theme's: it copies what `data-clipboard-target` names, and says so.

const BLOCKS = "article div.highlight:not(.output) pre:not(:has(.md-code__nav)) > code";

document$.subscribe(() => {
  for (const [index, code] of [...document.querySelectorAll(BLOCKS)].entries()) {
    const button = document.createElement("button");
    const nav = document.createElement("nav");
    code.id ||= `__copy_${index}`;
    button.className = "md-code__button";
    button.title = "Copy to clipboard";
    button.dataset.clipboardTarget = `#${code.id}`;
    button.dataset.mdType = "copy";
    nav.className = "md-code__nav";
    nav.ariaLabel = `Code block ${index + 1}`;
    nav.append(button);
    code.before(nav);
  }
});
