// "/" goes to the search box, from everywhere but where people type.
"use strict";

document.addEventListener("keydown", (event) => {
  const box = document.getElementById("find"), at = document.activeElement;
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || !box) return;
  if (at?.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(at?.tagName)) return;
  event.preventDefault();
  box.focus();
  box.select();
});
