// An explorable is loaded on the pages that have it; the browser then makes its elements live.

const EXPLORABLES = {
  "key-tree": () => import("../explorables/key-tree.mjs"),
  "sum-order": () => import("../explorables/sum-order.mjs"),
  "ulp-ruler": () => import("../explorables/ulp-ruler.mjs"),
};

document$.subscribe(() => {
  for (const [name, load] of Object.entries(EXPLORABLES)) {
    if (document.querySelector(name)) load();
  }
});
