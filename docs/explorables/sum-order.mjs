// <sum-order>: the same numbers added in four orders, the tree of one of them, and 1,000 random orders.
import { decimal, dtypes, hex, parse, roundedSum, ulps } from "./floats.mjs";
import { drawHistogram, drawTree, histogram, shuffle, signed, total, trees } from "./sum-order-trees.mjs";
import { beside, caption } from "./words.mjs";

const NUMBERS = ["0.3", "0.5", "0.1", "0.8", "0.6", "0.9", "0.2", "0.4"];
const ORDERS =
  { forward: "Left to right", backward: "Right to left", pairwise: "Pairwise", devices: "Devices" };

const counts = NUMBERS.slice(1).map((_, index) => `<option>${index + 2}</option>`).join("");
const select = ` <select name="devices" aria-label="Number of devices">${counts}</select>`;
const row = (head) => `<tr><th scope="row">${head}</th><td></td><td></td></tr>`;
const choice = (group) => ([order, label]) =>
  row(`<label><input type="radio" name="${group}" value="${order}"> ${label}</label>` +
    (order === "devices" ? select : ""));
const number = (_, index) =>
  `<li><button type="button">≡</button><input aria-label="Number ${index + 1}"></li>`;

/** What does not change; `group` names the radio buttons. */
const skeleton = (group) => `
  <div class="bar">
    <select name="dtype" aria-label="dtype"><option>float32</option><option>bfloat16</option></select>
    <button type="button" name="shuffle">Shuffle</button>
    <button type="button" name="reset">Reset</button>
  </div>
  <table>
    <thead><tr><th>Order</th><th>Sum and its bits</th><th>ULP off</th></tr></thead>
    <tbody>${Object.entries(ORDERS).map(choice(group)).join("")}${row("Exact, rounded once")}</tbody>
  </table>
  <div class="tree"><ol>${NUMBERS.map(number).join("")}</ol><div></div></div>
  <p role="status"></p>
  <p class="legend"><i></i> rounded <i class="exact"></i> exact
    <i class="sent"></i> between devices <b>≡</b> drag, or press ↑ ↓</p>
  <p class="title"></p>
  <div></div>`;

let instances = 0; // radio buttons of one name exclude each other: each instance has its own

class SumOrder extends HTMLElement {
  connectedCallback() {
    if (this.items) return; // moved within the page
    this.innerHTML = skeleton(`sum-order-${++instances}`);
    this.list = this.querySelector("ol");
    this.addEventListener("change", ({ target }) => this.changed(target));
    this.addEventListener("click", (event) => this.clicked(event));
    this.list.addEventListener("keydown", (event) => this.pressed(event));
    this.list.addEventListener("pointerdown", (event) => this.grabbed(event));
    this.list.addEventListener("pointermove", (event) => this.dragged(event));
    this.list.addEventListener("lostpointercapture", () => (this.held = undefined));
    this.reset();
  }

  reset() {
    this.control("dtype").value = "float32";
    this.control("devices").value = 2;
    this.choose("forward");
    this.show("", NUMBERS.map((text) => ({ text, number: Number(text) })));
  }

  control(name) {
    return this.querySelector(`[name=${name}]`);
  }

  choose(order) {
    this.querySelector(`[value=${order}]`).checked = true;
  }

  /** The place of the number that a control belongs to. */
  place(control) {
    return [...this.list.children].indexOf(control.parentNode);
  }

  changed(control) {
    if (this.list.contains(control)) return this.typed(this.place(control), control.value);
    if (control.name === "devices") this.choose("devices");
    this.show();
  }

  /** Take what was typed; where it is no number, the last one stays. */
  typed(place, text) {
    const item = this.items[place];
    const number = parse(text, this.control("dtype").value);
    this.items[place] = { text, number: number ?? item.number, wrong: number === undefined };
    this.show(`Number ${place + 1} is ${text}.`);
  }

  clicked({ target, detail }) {
    if (target.name === "reset") this.reset();
    if (target.name === "shuffle") {
      this.shuffles = (this.shuffles ?? 999) + 1; // the first thousand are the histogram's
      this.show("", shuffle(this.shuffles, this.items.length).map((place) => this.items[place]));
    }
    // A click moves a number one place, unless it ends a drag; one from the keyboard has no detail.
    if (target.matches("ol button") && !(this.moved && detail)) {
      this.move(this.place(target), (this.place(target) + 1) % this.items.length);
    }
  }

  pressed(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step || !event.target.matches("button")) return;
    event.preventDefault();
    this.move(this.place(event.target), this.place(event.target) + step);
  }

  grabbed({ target, pointerId }) {
    if (!target.matches("button")) return;
    target.setPointerCapture(pointerId);
    this.held = this.place(target);
    this.moved = false;
  }

  dragged({ clientY }) {
    if (this.held === undefined) return;
    const { top, height } = this.list.getBoundingClientRect();
    this.held = this.move(this.held, Math.floor(((clientY - top) / height) * this.items.length));
  }

  /** Move a number to another place, as far as the list goes; return where it is then. */
  move(from, wish) {
    const to = Math.max(0, Math.min(this.items.length - 1, wish));
    if (to === from) return to;
    this.moved = true;
    const items = [...this.items];
    items.splice(to, 0, ...items.splice(from, 1));
    this.show(`${items[to].text} is now number ${to + 1}.`, items);
    this.list.children[to].firstChild.focus({ preventScroll: true });
    return to;
  }

  /** Show the state; say first what is new. */
  show(news = "", items = this.items) {
    this.items = items;
    const dtype = this.control("dtype").value;
    const order = this.querySelector("input:checked").value;
    const devices = Number(this.control("devices").value);
    const values = items.map((item) => dtypes[dtype].round(item.number));
    const names = Object.keys(ORDERS);
    const sums = names.map((name) => total(trees[name](values.length, devices), values, dtype));
    const sum = sums[names.indexOf(order)];
    const exact = roundedSum(values, dtype);
    const text = (value) => decimal(value, dtype);
    const off = (value) => signed(ulps(exact, value, dtype));

    [...sums, exact].forEach((value, index) => {
      const row = this.querySelector("tbody").rows[index];
      row.className = names[index] === order ? "chosen" : "";
      const bits = Number.isNaN(value) ? "" : hex(value, dtype); // those of a NaN are up to the machine
      row.cells[1].innerHTML = `<b>${text(value)}</b> <code>${bits}</code>`;
      row.cells[2].textContent = off(value);
    });
    items.forEach((item, place) => {
      const [grip, input] = this.list.children[place].children;
      grip.ariaLabel = `Move ${item.text}, number ${place + 1}`;
      input.value = item.text;
      input.ariaInvalid = item.wrong ?? false;
      beside(input, item.wrong ? `no number: ${text(values[place])} is added` : "");
    });
    this.list.nextSibling.innerHTML = drawTree(trees[order](values.length, devices), values, dtype);

    const way = order === "devices" ? `on ${devices} devices` : ORDERS[order].toLowerCase();
    caption(this, `Above, eight ${dtype} numbers in four orders, and the tree of adding them ${way}; `
      + "below, 64 numbers in 1,000 orders.");
    const away = Number.isNaN(sum) ? "; no distance" : `, ${off(sum)} ULP off the exact sum`;
    const different = new Set(sums.map(text)).size;
    const wrong = items.findIndex((item) => item.wrong);
    this.querySelector("[role=status]").textContent = wrong < 0
      ? `${news} Added ${way}: ${text(sum)}${away}. ` +
        `The four orders give ${different > 1 ? `${different} different sums` : "the same sum"}.`
      : `Number ${wrong + 1} must be a decimal such as 0.1, -2 or 1e8, no larger than 3.38e38, ` +
        `or inf, -inf or nan; until it is, ${text(values[wrong])} is added.`;

    const title = this.querySelector(".title");
    const said = `1,000 random orders of 1, 1/2 … 1/64, added ${way} in ${dtype}: ULP off the exact sum`;
    if (title.textContent === said) return; // it names all that the histogram depends on
    title.textContent = said;
    title.nextElementSibling.innerHTML = drawHistogram(histogram(order, devices, dtype));
  }
}

customElements.define("sum-order", SumOrder);
