// What happens when the page is there.

$("theme").addEventListener("change", (event) => { document.documentElement.dataset.theme = event.target.value; drawPlots(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlots);
addEventListener("beforeprint", () => forPaper(true));
addEventListener("afterprint", () => forPaper(false));
$("sheet").addEventListener("keydown", (event) => { if (event.key.startsWith("Arrow")) moveFocus(event); });
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("close").addEventListener("click", () => $("detail").close());
$("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
$("detail").addEventListener("close", () => { state.open = null; state.opener?.focus(); });
$("detail").addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT") return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
  if (event.key === "1") $("native")?.click();
});
$("copy").addEventListener("click", async () => {
  const range = document.createRange();
  range.selectNodeContents($("methods-text"));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  try {
    await navigator.clipboard.writeText($("methods-text").textContent);
  } catch {
    document.execCommand("copy"); // pages opened from disk have no clipboard in some browsers
  }
});

drawFindings();
drawCuration();
drawControls();
drawSheet();
drawSeriesControls();
drawTraceControls();
drawDistributionControls();
drawEffects();
drawMapSection();
drawRecognition();
drawPlots();
