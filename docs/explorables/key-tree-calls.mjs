// One program, three ways to get its numbers, and what one more call moves: the table of <key-tree>.
import { hex, streamKey } from "./key-tree-model.mjs";
import { bits, split } from "./threefry.mjs";

export const WAYS = ["generator", "chain of splits", "named streams"];

/** What each call draws from a generator, from a chain of splits, and from a stream of its own. */
function drawInTurn(root, names) {
  const numbers = bits(root, names.length);
  let carried = root;
  return names.map((name, turn) => {
    const [next, own] = split(carried);
    carried = next;
    return [name, [numbers[turn], bits(own)[0], bits(streamKey(root, name))[0]]];
  });
}

/** The calls as rows, each number beside what it is when params, dropout and shuffle are called. */
export function table(root, hasExtra, isEarly) {
  const usual = ["params", "dropout", "shuffle"];
  const before = new Map(drawInTurn(root, usual));
  const names = isEarly ? ["shuffle", "params", "dropout"] : usual;
  const moved = [0, 0, 0];
  const rows = drawInTurn(root, hasExtra ? ["augment", ...names] : names).map(([name, numbers]) => {
    const cells = numbers.map((number, way) => {
      const was = before.get(name)?.[way] ?? number;
      const note = !before.has(name) ? "new" : was === number ? "stays" : `was ${hex(was)}`;
      moved[way] += was !== number;
      const red = was === number ? "" : ' class="key-tree-red"';
      return `<td${red}><b>${hex(number)}</b> <small>${note}</small></td>`;
    });
    return `<tr><th scope="row">${name}</th>${cells.join("")}</tr>`;
  });
  const head = WAYS.map((way) => `<th scope="col">${way}</th>`);
  const foot = moved.map((count) => `<td><b>${count} of 3</b></td>`);
  const changes = [hasExtra && "one more call", isEarly && "another order"].filter(Boolean).join(" and ");
  return `<caption>The same three draws${changes && `, before and after ${changes}`}</caption>
    <thead><tr><td></td>${head.join("")}</tr></thead>
    <tbody>${rows.join("")}</tbody>
    <tfoot><tr><th scope="row">moved</th>${foot.join("")}</tr></tfoot>`;
}
