// Lets a file be dropped on an element.

/** Call `choose` with each file that is dropped on the element, and mark the element while one is above it. */
export function dropping(element, choose) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    choose(event.dataTransfer.files[0]);
  });
}
