// <ulp-ruler>: two numbers, their bits, the line they stand on, and what a tolerance makes of them.
import { bitsOf, decimal, dtypes, valueOf } from "./floats.mjs";
import { draw } from "./ulp-line.mjs";
import {
  allclose, apart, count, decimalOf, exponentOf, nudge, numbers, reach, read, short, step,
} from "./ulps.mjs";
import { beside, caption } from "./words.mjs";

const EXAMPLES = {
  "One sum, two orders": ["503.05457", "503.0544"],
  "On both sides of 1": ["1.0000001", "0.9999999"],
  "Near zero": ["1e-9", "-1e-9"],
  "The largest": ["inf", "3.4028235e38"],
};

const truth = (answer) => (answer ? "True" : "False"); // as Python spells it
const number = (side) => `<fieldset name="${side}">
  <label>${side} <input name="${side}" size="13" autocomplete="off"></label>
  <button name="nudge" value="-1" aria-label="${side} minus 1 ULP">− 1 ULP</button>
  <button name="nudge" value="1" aria-label="${side} plus 1 ULP">+ 1 ULP</button> <code></code>
  <div role="group" aria-label="Bits of ${side}"></div></fieldset>`;
const examples = Object.keys(EXAMPLES).map((name) => `<button name="example">${name}</button>`);

const TEMPLATE = `
  <p>${examples.join(" ")}</p>
  ${number("A")}${number("B")}
  <p><label>dtype <select name="dtype"><option>float32</option><option>bfloat16</option></select></label>
  <label>rtol <input name="rtol" size="7"></label> <label>atol <input name="atol" size="7"></label></p>
  <div role="status" aria-atomic="true"><dl><div><dt>apart</dt><dd></dd></div>
  <div><dt>np.allclose(A, B)</dt><dd></dd></div><div><dt>same bits</dt><dd></dd></div></dl><p></p></div>
  <svg role="img" aria-label="The line of numbers around A and B, and the tolerance around B"></svg>`;

/** Three groups of buttons, one for each bit; only one of them at a time is reached by Tab. */
function bitButtons(side, { width, mantissa }) {
  const group = ([field, from, to]) => {
    const buttons = Array.from({ length: from - to + 1 }, (_, index) =>
      `<button name="bit" value="${from - index}" tabindex="${field === "sign" ? 0 : -1}"
        data-name="${side} ${field}, bit ${from - index}"></button>`);
    return `<span>${buttons.join("")}<small>${field} <b></b></small></span>`;
  };
  const top = width - 1;
  const groups = [["sign", top, top], ["exponent", top - 1, mantissa], ["mantissa", mantissa - 1, 0]];
  return groups.map(group).join("");
}

class UlpRuler extends HTMLElement {
  connectedCallback() {
    this.innerHTML = TEMPLATE;
    this.onclick = this.clicked;
    this.onchange = this.changed;
    this.onkeydown = this.pressed;
    this.load(Object.keys(EXAMPLES)[0]);
  }

  load(example) {
    const [A, B] = EXAMPLES[example].map((number) => read(number, "float32"));
    this.show({ A, B, dtype: "float32", rtol: 1e-5, atol: 1e-8 });
  }

  clicked({ target }) {
    const side = target.closest("fieldset")?.name;
    if (target.name === "example") this.load(target.textContent);
    if (target.name === "nudge") this.step(side, Number(target.value));
    if (target.name === "bit") this.show({ [side]: (this.state[side] ^ (1 << target.value)) >>> 0 });
  }

  step(side, steps) {
    const { dtype, [side]: bits } = this.state;
    const next = nudge(bits, steps, dtype);
    this.show({ [side]: next }, next === bits ? `Nothing lies beyond ${decimalOf(bits, dtype)}. ` : "");
  }

  changed({ target }) {
    const { name, value } = target;
    const { A, B, dtype } = this.state;
    if (name === "dtype") {
      const rounded = (bits) => bitsOf(dtypes[value].round(valueOf(bits, dtype)), value);
      this.show({ dtype: value, A: rounded(A), B: rounded(B) });
    } else if (name === "rtol" || name === "atol") {
      const tolerance = value.trim() ? Number(value) : NaN;
      if (tolerance >= 0 && tolerance < Infinity) this.show({ [name]: tolerance });
      else this.refuse(target, "from 0 up", `${name} takes a number from 0 up, such as 1e-5.`);
    } else {
      const bits = read(value, dtype);
      if (bits !== null) {
        const end = decimalOf(bits, dtype);
        const isRounded = end.endsWith("inf") && !/[fx]/i.test(value); // neither inf nor bits
        this.show({ [name]: bits }, isRounded ? `Rounded to ${end}. ` : "");
      } else {
        const asBits = `0x and the ${dtypes[dtype].width / 4} digits of its bits`;
        this.refuse(target, "no number", `${name} takes a number such as 0.1 or -2e-3, inf, nan, or ${asBits}.`);
      }
    }
  }

  pressed(event) {
    const { target, key } = event;
    const buttons = [...target.closest("fieldset")?.querySelectorAll("[name=bit]") ?? []];
    const at = buttons.indexOf(target);
    const up = { ArrowUp: 1, ArrowDown: -1 }[key];
    const next = buttons[{ ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 }[key]];
    if (up && target.matches("fieldset input")) this.step(target.name, up);
    else if (at >= 0 && next) {
      for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
      next.focus();
    } else return;
    event.preventDefault();
  }

  say(words) {
    this.querySelector("[role=status] p").textContent = words;
  }

  /** Say what is allowed; everything else stays as it was. */
  refuse(input, short, words) {
    input.setAttribute("aria-invalid", "true");
    beside(input, short);
    this.say(words);
  }

  /** Take what changed and say so; the elements stay, and so does the focus. */
  show(changes, news = "") {
    this.state = { ...this.state, ...changes };
    const { A, B, dtype } = this.state;
    const [a, b] = [A, B].map((bits) => decimalOf(bits, dtype));
    for (const [name, text] of Object.entries({ ...this.state, A: a, B: b })) {
      const field = this.querySelector(`:is(input, select)[name=${name}]`);
      field.value = short(text);
      field.removeAttribute("aria-invalid");
      beside(field);
    }
    const differing = (A ^ B) >>> 0;
    for (const side of "AB") this.showBits(side, differing);

    const distance = apart(A, B, dtype);
    const close = allclose(A, B, this.state);
    const answers = [distance >= 0 ? `${count(distance)} ULP` : "no distance", truth(close), truth(A === B)];
    this.querySelectorAll("dd").forEach((answer, index) => (answer.textContent = answers[index]));
    const [below, above] = [-1, 1].map((direction) => reach(B, direction, this.state));
    const ones = differing.toString(2).replaceAll("0", "").length;
    const the = /\d/.test(b) ? `At B, 1 ULP is ${step(B, dtype)}, and the` : "The";
    this.say(`${news}A = ${a}, B = ${b}: ${ones} of ${dtypes[dtype].width} bits differ. `
      + `${the} tolerance covers ${numbers(below)} below and ${count(above)} above.`);
    const known = dtype === "float32" && [a, b].join() === Object.values(EXAMPLES)[0].join();
    const what = known
      ? "Two float32 sums of the same 1,000 numbers, added in two orders." : `${a} and ${b} in ${dtype}.`;
    const where = distance >= 0
      ? `on the line of numbers they are ${count(distance)} ULP apart` : "NaN has no place on the line of numbers";
    caption(this, `${what} np.allclose calls them ${close ? "equal" : "different"}; ${where}.`);
    this.querySelector("svg").innerHTML = draw({ A, B, dtype, below, above });
  }

  showBits(side, differing) {
    const { dtype, [side]: bits } = this.state;
    const { width, mantissa } = dtypes[dtype];
    const fieldset = this.querySelector(`fieldset[name=${side}]`);
    const group = fieldset.querySelector("[role=group]");
    if (group.querySelectorAll("button").length !== width) group.innerHTML = bitButtons(side, dtypes[dtype]);
    for (const button of group.querySelectorAll("button")) {
      const bit = (bits >>> button.value) & 1;
      button.textContent = bit;
      button.setAttribute("aria-pressed", bit === 1);
      button.setAttribute("aria-label", `${button.dataset.name}: ${bit}`);
      button.classList.toggle("differs", (differing >>> button.value) & 1);
    }
    fieldset.querySelector("code").textContent = `0x${bits.toString(16).padStart(width / 4, "0")}`;
    const exponent = exponentOf(bits, dtype);
    const fraction = (bits % 2 ** mantissa) / 2 ** mantissa;
    const parts = [bits >>> (width - 1) ? "−" : "+"];
    if (exponent === 255) parts.push("all ones", fraction ? "nan" : "inf");
    else {
      const factor = decimal(fraction + Math.min(exponent, 1), dtype);
      parts.push(`× 2<sup>${Math.max(exponent, 1) - 127}</sup>`, `× ${factor}`);
    }
    group.querySelectorAll("b").forEach((part, index) => (part.innerHTML = parts[index]));
  }
}
customElements.define("ulp-ruler", UlpRuler);
