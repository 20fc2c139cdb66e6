// What a reader's eye would find wrong on a page, as a list of sentences; read by test_pages.py.
() => {
  const found = [];
  const narrow = innerWidth < 720;
  const shown = (it) => it.getClientRects().length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(shown);
  const start = (it) => it.textContent.trim().slice(0, 40);

  // The text nodes of an element, each with the boxes that a range of it has on the screen.
  const texts = function* (element) {
    const nodes = document.createNodeIterator(element, NodeFilter.SHOW_TEXT);
    for (let node; (node = nodes.nextNode()); ) yield node;
  };
  const boxes = (node, from, to) => {
    const range = document.createRange();
    range.setStart(node, from);
    range.setEnd(node, to);
    return [...range.getClientRects()];
  };

  // A line of prose: the characters of the words at one height.
  for (const part of all("article :is(p, li, dd)")) {
    if (narrow || part.closest("table, figure, .highlight, nav, .grid") || part.querySelector("p, ul, ol, div, a.headerlink")) continue;
    const lines = {};
    for (const node of texts(part)) {
      for (const { 0: word, index } of node.textContent.matchAll(/[^\s-]+[\s-]*/g)) {
        const [box] = boxes(node, index, index + word.match(/[^\s-]+/)[0].length);
        const line = box && Math.round((box.top + box.bottom) / 24);
        if (box) lines[line] = (lines[line] ?? 0) + word.length;
      }
    }
    if (Math.max(...Object.values(lines)) > 76) found.push(`a line of more than 75 characters: ${start(part)}`);
  }

  const size = (it) => parseFloat(getComputedStyle(it).fontSize);
  for (const heading of all("article :is(h2, h3, h4)")) {
    const outranks = getComputedStyle(heading).fontWeight >= 700 && size(heading) > size(heading.parentElement);
    if (!outranks) found.push(`a heading that bold text outranks: ${start(heading)}`);
  }

  for (const box of all("article .md-typeset__scrollwrap")) {
    if (narrow && box.scrollWidth > box.clientWidth) found.push(`a table that scrolls sideways: ${start(box)}`);
  }

  for (const code of all("article :not(pre) > code")) {
    if (/\S{30}/.test(code.textContent)) continue; // it does not fit beside anything on a phone
    for (const node of texts(code)) {
      for (const { 0: name, index } of node.textContent.matchAll(/\w+/g)) {
        const lines = new Set(boxes(node, index, index + name.length).map((box) => Math.round(box.top / 8)));
        if (lines.size > 1) found.push(`a name broken in its middle: ${name}`);
      }
    }
  }

  for (const button of all("article .md-code__button")) {
    const code = button.closest("pre").querySelector("code").getBoundingClientRect();
    if (button.getBoundingClientRect().left < code.right) found.push("a button over text");
  }

  // An output has another ground than the code above it.
  const ground = (it) => getComputedStyle(it).backgroundColor;
  for (const output of all("article .highlight + .output.highlight pre")) {
    const code = output.closest(".highlight").previousElementSibling.querySelector("pre");
    if (code && ground(code) === ground(output)) found.push(`an output that looks like code: ${start(output)}`);
  }
  return found;
}
