const gallery = document.getElementById("gallery");
if (gallery) {
  const entries = JSON.parse(document.getElementById("gallery-data").textContent);
  const [chosenClass, low, high, order] = ["class", "low", "high", "order"].map(
    (name) => document.getElementById(`gallery-${name}`));
  const thumbnails = document.getElementById("thumbnails"), more = document.getElementById("gallery-more");
  const found = document.getElementById("gallery-found");
  const pageLength = 24; // the others are drawn when somebody asks for them
  let listed = [], shown = 0;

  const readScore = (entry) => (chosenClass.value === "" ? entry.score : entry.classes[chosenClass.value] ?? null);

  function drawThumbnail(entry) {
    const figure = document.createElement("figure"), stage = document.createElement("div");
    stage.className = "stage";
    stage.style.aspectRatio = `${entry.width}/${entry.height}`;
    for (const layer of ["photo", "truth", "prediction", "errors"]) {
      const image = new Image();
      image.className = layer;
      image.alt = layer === "photo" ? entry.name : "";
      image.src = entry[layer];
      stage.append(image);
    }
    const caption = document.createElement("figcaption"), name = document.createElement("span");
    name.className = "name";
    name.textContent = entry.name;
    const figureText = document.createElement("span"), score = readScore(entry);
    figureText.className = "figure";
    figureText.textContent = score === null ? "no score" : `${score.toFixed(1)} %`;
    caption.append(name, figureText);
    figure.append(stage, caption);
    return figure;
  }

  function showMore() {
    thumbnails.append(...listed.slice(shown, shown + pageLength).map(drawThumbnail));
    shown = Math.min(listed.length, shown + pageLength);
    more.hidden = shown >= listed.length;
  }

  function filter() {
    const isWhole = Number(low.value) <= 0 && Number(high.value || 100) >= 100;
    listed = entries.filter((entry) => {
      if (chosenClass.value !== "" && !(chosenClass.value in entry.classes)) return false;
      const score = readScore(entry);
      return score === null ? isWhole : score >= Number(low.value) && score <= Number(high.value || 100);
    });
    const direction = { worst: 1, best: -1, split: 0 }[order.value];
    const rank = (entry) => readScore(entry) ?? Infinity * direction; // without a score: at the end
    if (direction) listed.sort((a, b) => direction * (rank(a) - rank(b)) || 0);
    found.textContent = `Found: ${listed.length.toLocaleString("en")}.`;
    thumbnails.replaceChildren();
    shown = 0;
    showMore();
  }

  for (const control of [chosenClass, low, high, order]) control.addEventListener("input", filter);
  for (const radio of gallery.querySelectorAll("input[name=layer]")) {
    radio.addEventListener("change", () => { gallery.dataset.layer = radio.value; });
    if (radio.checked) gallery.dataset.layer = radio.value;
  }
  more.addEventListener("click", showMore);
  filter();
}
