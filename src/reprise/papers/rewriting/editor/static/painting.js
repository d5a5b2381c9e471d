// An image of the grid: its pictures one over the other, and on top a canvas on which a mask is painted, with pointer or keys.

const SIDE = 256; // of a mask, as in the paper's tool
const STEP = 8; // of the keyboard
const ORDERS = { c: "copy", v: "paste", a: "context", s: "search" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const within = (value, least, most) => Math.max(least, Math.min(most, value));

// An element with properties, data-* and aria-label, and what is in it.
export function make(tag, properties = {}, ...children) {
  const { dataset = {}, label, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, dataset);
  if (label) made.setAttribute("aria-label", label);
  made.append(...children);
  return made;
}

export class Tile {
  static active = null; // the one with the mask: there is one at a time

  // `tools` has name(), size(), resize(by) and order(what).
  constructor(number, tools) {
    this.number = number;
    this.tools = tools;
    this.at = { x: SIDE / 2, y: SIDE / 2 };
    this.box = { width: 64, height: 64 };
    const image = (className) => make("img", { className, alt: "", draggable: false });
    [this.before, this.after, this.match] = ["before", "after", "match"].map(image);
    this.canvas = make("canvas", { width: SIDE, height: SIDE, tabIndex: 0, dataset: { testid: `image-${number}` } });
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-roledescription", "image to paint on");
    this.canvas.setAttribute("aria-describedby", "hint");
    this.cursor = make("div", { className: "cursor" });
    this.badges = make("div", { className: "badges" });
    const line = make("div", { className: "line" });
    const name = make("span", { className: "number", textContent: number });
    this.root = make("div", { className: "tile" }, this.before, this.after, line, this.match, this.canvas, this.cursor, name, this.badges);
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("focus", () => this.outline());
  }

  // Pictures {before, after, match} and marks [name, what they are for].
  show(pictures, marks) {
    if (pictures) {
      this.before.src = pictures.before;
      this.after.src = pictures.after;
    }
    this.match.hidden = !pictures?.match;
    if (pictures?.match) this.match.src = pictures.match;
    this.badges.replaceChildren(...marks.map(([textContent, what]) => make("span", { className: `badge ${what}`, textContent })));
    const said = marks.map(([name]) => `, marked as ${name.toLowerCase()}`).join("");
    this.canvas.setAttribute("aria-label", `Image ${this.number}${said}`);
  }

  claim() {
    if (Tile.active !== this) Tile.active?.clear();
    Tile.active = this;
  }

  clear() {
    this.pen.clearRect(0, 0, SIDE, SIDE);
    if (Tile.active === this) Tile.active = null;
  }

  // --- the pointer

  point(event) {
    const frame = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - frame.left) / frame.width) * SIDE, y: ((event.clientY - frame.top) / frame.height) * SIDE };
  }

  begin(event) {
    if (event.button !== 0) return;
    this.claim();
    this.canvas.setPointerCapture(event.pointerId);
    const start = this.point(event);
    const kept = this.pen.getImageData(0, 0, SIDE, SIDE);
    const rectangle = this.tools.name() === "rectangle";
    let last = start;
    const move = (event) => {
      const now = this.point(event);
      if (rectangle) {
        this.pen.putImageData(kept, 0, 0);
        this.fill(start, now);
      } else this.stroke(last, now);
      last = now;
    };
    const during = new AbortController();
    this.canvas.addEventListener("pointermove", move, during);
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => during.abort(), during);
    if (!rectangle) this.stroke(start, start);
  }

  ready() {
    this.pen.globalCompositeOperation = this.tools.name() === "eraser" ? "destination-out" : "source-over";
    this.pen.fillStyle = this.pen.strokeStyle = getComputedStyle(document.body).getPropertyValue("--paint");
    this.pen.lineWidth = this.tools.size();
    this.pen.lineCap = "round";
  }

  stroke(from, to) {
    this.ready();
    this.pen.beginPath();
    this.pen.moveTo(from.x, from.y);
    this.pen.lineTo(to.x + 0.01, to.y);
    this.pen.stroke();
  }

  fill(from, to) {
    this.ready();
    this.pen.fillRect(Math.min(from.x, to.x), Math.min(from.y, to.y), Math.abs(to.x - from.x), Math.abs(to.y - from.y));
  }

  // --- the keyboard

  outline() {
    const rectangle = this.tools.name() === "rectangle";
    const [width, height] = rectangle ? [this.box.width, this.box.height] : [this.tools.size(), this.tools.size()];
    const share = (value) => `${(100 * value) / SIDE}%`;
    const [left, top] = [share(this.at.x - width / 2), share(this.at.y - height / 2)];
    Object.assign(this.cursor.style, { left, top, width: share(width), height: share(height), borderRadius: rectangle ? "0" : "50%" });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) this.steer(...ARROWS[event.key].map((way) => STEP * way), event.shiftKey);
    else if (event.key === " " || event.key === "Enter") this.stamp();
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.key in ORDERS) this.tools.order(ORDERS[event.key]);
    else return;
    event.preventDefault();
    this.outline();
  }

  steer(dx, dy, resize) {
    if (!resize) this.at = { x: within(this.at.x + dx, 0, SIDE), y: within(this.at.y + dy, 0, SIDE) };
    else if (this.tools.name() !== "rectangle") this.tools.resize(dx - dy);
    else this.box = { width: within(this.box.width + dx, STEP, SIDE), height: within(this.box.height - dy, STEP, SIDE) };
  }

  stamp() {
    this.claim();
    const { x, y } = this.at;
    const [w, h] = [this.box.width / 2, this.box.height / 2];
    if (this.tools.name() === "rectangle") this.fill({ x: x - w, y: y - h }, { x: x + w, y: y + h });
    else this.stroke(this.at, this.at);
  }

  // --- the mask

  // White on transparent, as the paper's tool has it; null where nothing is painted.
  mask() {
    const copy = make("canvas", { width: SIDE, height: SIDE });
    const pen = copy.getContext("2d", { willReadFrequently: true });
    pen.drawImage(this.canvas, 0, 0);
    pen.globalCompositeOperation = "source-in";
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, SIDE, SIDE);
    const some = pen.getImageData(0, 0, SIDE, SIDE).data.some((value, i) => i % 4 === 3 && value > 127);
    return some ? copy.toDataURL("image/png") : null;
  }
}
