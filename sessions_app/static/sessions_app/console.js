// What the acting pages share: forms that are sent without leaving the page, and parts that are put in place.
"use strict";

const Console = {
  // Characters that show nothing or move others; the same as sessions_app/admin/shown.py.
  unseen: /[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]|\p{Surrogate}/gu,

  visible(text) {
    return text.replace(this.unseen, (char) => `⟦U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟧`);
  },

  say(text, ok) {
    let list = document.querySelector("ul.messagelist.live");
    if (!list) {
      list = document.createElement("ul");
      list.className = "messagelist live";
      list.setAttribute("role", "status");
      document.querySelector("#content").before(list);
    }
    const item = document.createElement("li");
    item.className = ok ? "success" : "error";
    item.textContent = text;
    list.replaceChildren(item);
    clearTimeout(this.fading);
    if (ok) this.fading = setTimeout(() => list.replaceChildren(), 4000);
  },

  // Replaces those parts of the page that came back different, and leaves what a person is at work in.
  replace(html, seen) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    for (const part of fresh.body.querySelectorAll(":scope > [id]")) {
      for (const token of part.querySelectorAll("input[name=csrfmiddlewaretoken]")) token.value = "";
      const now = document.getElementById(part.id);
      if (!now || seen.get(part.id) === part.outerHTML) continue;
      if (now.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox]), textarea, select")) continue;
      seen.set(part.id, part.outerHTML);
      this.keepState(now, part);
      const top = now.scrollTop, atEnd = top + now.clientHeight >= now.scrollHeight - 4;
      const focused = now.contains(document.activeElement) ? this.place(now, document.activeElement) : null;
      now.replaceWith(part);
      part.scrollTop = atEnd ? part.scrollHeight : top;
      if (focused) part.querySelectorAll(focused.kind)[focused.index]?.focus();
    }
  },

  // What a person has unfolded or ticked stays so.
  keepState(now, part) {
    const open = new Set([...now.querySelectorAll("details[open]")].map((fold) => this.path(fold)));
    for (const fold of part.querySelectorAll("details")) if (open.has(this.path(fold))) fold.open = true;
    for (const box of now.querySelectorAll("input.choose:checked")) {
      const same = part.querySelector(`input.choose[value="${CSS.escape(box.value)}"]`);
      if (same) same.checked = true;
    }
  },

  path(fold) {
    const home = fold.closest("[id]");
    return `${home?.id}/${[...(home?.querySelectorAll("details") ?? [])].indexOf(fold)}`;
  },

  place(root, element) {
    const kind = element.tagName.toLowerCase();
    return { kind, index: [...root.querySelectorAll(kind)].indexOf(element) };
  },

  token() {
    return document.cookie.split("; ").find((one) => one.startsWith("csrftoken="))?.slice(10)
      ?? document.querySelector("input[name=csrfmiddlewaretoken]:not([value=''])")?.value ?? "";
  },

  async send(form, button) {
    const body = new FormData(form, button ?? undefined);
    body.delete("csrfmiddlewaretoken");
    const buttons = form.querySelectorAll("button");
    for (const one of buttons) one.disabled = true;
    try {
      const answer = await fetch(form.action, {
        method: "POST", body, headers: { Accept: "application/json", "X-CSRFToken": this.token() },
      });
      const said = answer.headers.get("content-type")?.includes("json") ? await answer.json() : { text: `HTTP ${answer.status}`, ok: false };
      this.say(said.text, said.ok);
      if (said.ok && "clears" in form.dataset) form.reset();
      if (said.ok) document.activeElement?.blur();
      return said.ok;
    } catch (error) {
      this.say(String(error), false);
      return false;
    } finally {
      for (const one of buttons) one.disabled = false;
    }
  },

  // Every form with data-deed is sent in place; `after` is called when it has been done, or refused.
  listen(after) {
    document.addEventListener("submit", async (event) => {
      const form = event.target;
      if (!("deed" in form.dataset)) return;
      event.preventDefault();
      await this.send(form, event.submitter);
      after();
    });
  },
};

// A part that was put in place has no token of its own: a form that leaves the page takes the one of the cookie.
document.addEventListener("submit", (event) => {
  for (const token of event.target.querySelectorAll("input[name=csrfmiddlewaretoken]")) token.value ||= Console.token();
}, true);
