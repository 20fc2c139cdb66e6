// <key-tree seed="42">: grow a tree of JAX keys, use one twice, and see what one more call moves.
// Its numbers equal JAX's bit for bit (tests/browser/test_key_tree.py). Without scripts a reader sees
// what key-tree.html holds, the same default.
import { WAYS, table } from "./key-tree-calls.mjs";
import * as model from "./key-tree-model.mjs";
import { bits, key, uniform } from "./threefry.mjs";
import { beside, caption } from "./words.mjs";

const FRAME = `<form autocomplete="off">
  <p class="key-tree-bar">
    <label>seed <input name="seed" inputmode="numeric" size="10"></label>
    <button type="button" name="copy">copy as Python</button>
    <button type="button" name="restart">start again</button>
  </p>
  <div class="key-tree-panes">
    <div class="key-tree-keys" role="radiogroup" aria-label="keys"></div>
    <div>
      <table class="key-tree-calls"></table>
      <p class="key-tree-bar">
        <label><input type="checkbox" name="extra" checked> one more call</label>
        <label><input type="checkbox" name="early"> shuffle earlier</label>
      </p>
    </div>
  </div>
  <p class="key-tree-status" role="status"></p>
  <textarea readonly hidden wrap="off" rows="16" cols="90" aria-label="the tree as Python"></textarea>
  <div class="key-tree-tools" role="group" aria-label="use the chosen key">
    <button type="button" name="draw">draw</button>
    <button type="button" name="split">split</button>
    <span><button type="button" name="fold_in">fold_in</button><input name="number" value="2" size="3"
      inputmode="numeric" aria-label="number to fold in"></span>
    <span><button type="button" name="stream_key">stream_key</button><select name="stream"
      aria-label="name of the stream">
      ${Object.keys(model.STREAMS).map((name) => `<option>${name}</option>`).join("")}
    </select></span>
    <button type="button" name="clear">clear</button>
  </div>
</form>`;

/** A key as a list item, its draws and children below it; `drawn` gathers the words of draws so far. */
function branch(item, chosen, keys, drawn) {
  const reused = model.reuse(item);
  const red = reused || model.drawsOf(item.words, keys) > 1 ? " key-tree-red" : "";
  const draws = Array.from({ length: item.draws }, () => {
    const again = drawn.has(String(item.words)) ? "<em>same numbers again</em>" : "";
    drawn.add(String(item.words));
    return `<li><span class="key-tree-draw${red}">draw <b>${model.hex(bits(item.words)[0])}</b>
      <span>${model.shortest(uniform(item.words)[0])}</span> ${again}</span></li>`;
  });
  const below = [...draws, ...item.children.map((child) => branch(child, chosen, keys, drawn))].join("");
  return `<li><label class="key-tree-key${reused && red}">
      <input type="radio" name="key" value="${keys.indexOf(item)}" ${item === chosen ? "checked" : ""}>
      <b>${item.name}</b> <span>${item.words.map(model.hex).join(" ")}</span> <small>${item.call}</small>
      ${reused && `<em>${reused}</em>`}
    </label>${below && `<ul>${below}</ul>`}</li>`;
}

/** What to say after a key was used, if it must not be used so. */
const warning = (source, name) => (model.reuse(source) ? ` ${name} is ${model.reuse(source)}.` : "");

class KeyTree extends HTMLElement {
  connectedCallback() {
    if (this.form) return; // it was only moved
    this.innerHTML = FRAME;
    this.form = this.querySelector("form");
    this.controls = this.form.elements;
    this.tools = this.querySelector(".key-tree-tools");
    this.controls.seed.defaultValue = model.whole(this.getAttribute("seed") ?? "") ?? 42;
    this.restart();
    this.render();
    this.addEventListener("input", ({ target }) => this.change(target));
    this.addEventListener("click", ({ target }) => this.press(target.closest("button")?.name));
    this.form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** Draw the tree and the table anew; the focus stays where it was. */
  render() {
    const focused = this.contains(document.activeElement) && document.activeElement;
    const tree = model.resolve(this.root, "root", `key(${this.seed})`, key(this.seed));
    this.keys = model.flatten(tree);
    const chosen = this.keys.find(({ source }) => source === this.chosen);
    const list = branch(tree, chosen, this.keys, new Set());
    this.querySelector(".key-tree-keys").innerHTML = `<p>Choose a key, then:</p><ul>${list}</ul>`;
    const radio = this.querySelector("[name=key]:checked");
    radio.parentElement.after(this.tools);
    const { extra, early } = this.controls;
    this.querySelector("table").innerHTML = table(tree.words, extra.checked, early.checked);
    this.querySelector("textarea").value = model.program(tree);
    const reused = this.keys.filter(({ source }) => model.reuse(source)).map(({ name }) => name);
    caption(this, `A tree of ${this.keys.length} keys from seed ${this.seed}. `
      + `${reused.length ? `Used more than once: ${reused.join(", ")}` : "No key is used twice"}. ${this.moved()}`);
    if (focused) (focused.name === "key" ? radio : focused).focus();
  }

  say(sentence) {
    this.querySelector(".key-tree-status").textContent = sentence;
  }

  /** Take over what was typed, chosen or ticked. */
  change({ name, value }) {
    if (name === "seed" && this.accept(name) !== null) {
      this.seed = model.whole(value);
      this.say(`Seed ${this.seed}: every key and every number is another one.`);
    }
    if (name === "number" && this.accept(name) !== null) this.say("");
    if (name === "key") this.chosen = this.keys[value].source;
    if (["seed", "key", "extra", "early"].includes(name)) this.render();
    if (name === "extra" || name === "early") {
      this.say(this.moved());
    }
  }

  moved() {
    const counts = this.querySelectorAll("tfoot td");
    return `Moved: ${WAYS.map((way, index) => `${way} ${counts[index].textContent}`).join(", ")}.`;
  }

  /** The number that stands in a control, or null, which is said. */
  accept(name) {
    const number = model.whole(this.controls[name].value);
    this.controls[name].setAttribute("aria-invalid", number === null);
    beside(this.controls[name], number === null ? "not a whole number from 0 to 2**32 - 1" : "");
    if (number === null) this.say(`The ${name} must be a whole number from 0 to 4294967295 (2**32 - 1).`);
    return number;
  }

  /** Do what a button is named after, show it, and say it. */
  async press(name) {
    if (!name) return;
    const said = await this[name](this.keys.find(({ source }) => source === this.chosen));
    this.render();
    if (said) this.say(said);
  }

  draw({ source, name, words }) {
    const again = model.drawsOf(words, this.keys) ? ", the same numbers again" : "";
    source.draws += 1;
    return `${name} draws ${model.hex(bits(words)[0])}${again}.${warning(source, name)}`;
  }

  split(chosen) {
    return this.grow(chosen, "split", [0, 1]);
  }

  fold_in(chosen) {
    const number = this.accept("number");
    return number === null ? "" : this.grow(chosen, "fold_in", [number]);
  }

  stream_key(chosen) {
    return this.grow(chosen, "stream_key", [this.controls.stream.value]);
  }

  /** Hang keys below a key, unless they hang there. */
  grow({ source, name }, by, values) {
    const calls = values.map((value) => model.CALL[by](name, value)).join(" and ");
    const isThere = source.children.some((child) => child.by === by && child.value === values[0]);
    if (isThere) return `${calls} again: the same words, so the same key.`;
    source.children.push(...values.map((value) => model.node(by, value)));
    return `New: ${calls}.${warning(source, name)}`;
  }

  clear({ source, name }) {
    Object.assign(source, { draws: 0, children: [] });
    return `${name} is unused again.`;
  }

  restart() {
    this.form.reset();
    this.seed = Number(this.controls.seed.value);
    for (const input of this.form.querySelectorAll("[aria-invalid]")) {
      input.removeAttribute("aria-invalid");
      beside(input);
    }
    this.root = model.example();
    this.chosen = this.root.children[2];
    return "The tree is as it was at first.";
  }

  async copy() {
    const text = this.querySelector("textarea");
    text.hidden = false;
    try {
      await navigator.clipboard.writeText(text.value);
      return "Copied: the program is on the clipboard.";
    } catch {
      text.focus();
      text.select();
      return "The clipboard is blocked: the program is selected below, copy it yourself.";
    }
  }
}

customElements.define("key-tree", KeyTree);
