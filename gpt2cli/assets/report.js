
// shows the records that contain every word of the search
const search = document.getElementById("search");
if (search) {
  const cards = [...document.querySelectorAll("article")];
  const texts = cards.map((card) => card.textContent.toLowerCase());
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    cards.forEach((card, i) => {
      card.hidden = !words.every((word) => texts[i].includes(word));
      shown += !card.hidden;
    });
    document.getElementById("count").textContent = shown + " of " + cards.length;
  });
}
