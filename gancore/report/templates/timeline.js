"use strict";
// One slider for the sheets of all runs: each shows its newest one up to the chosen step.
function showStep(timeline, index) {
  const steps = JSON.parse(timeline.dataset.steps);
  const step = steps[index];
  timeline.querySelector("output").textContent = step.toLocaleString("en");
  for (const image of timeline.querySelectorAll("img.frame")) {
    const [own, sources] = image.parentElement.querySelectorAll("script");
    const earlier = JSON.parse(own.textContent).filter((at) => at <= step).length;
    image.src = JSON.parse(sources.textContent)[Math.max(earlier - 1, 0)];
  }
}
document.addEventListener("input", (event) => {
  const timeline = event.target.closest(".timeline");
  if (timeline) showStep(timeline, Number(event.target.value));
});
document.addEventListener("click", (event) => {
  const button = event.target.closest(".strip button");
  if (!button) return;
  const timeline = button.closest(".timeline");
  const steps = JSON.parse(timeline.dataset.steps);
  const slider = timeline.querySelector("input");
  slider.value = Math.max(steps.filter((at) => at <= Number(button.dataset.step)).length - 1, 0);
  showStep(timeline, Number(slider.value));
});
