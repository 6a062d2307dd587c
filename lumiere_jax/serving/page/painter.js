// Paints a region over a picture, with a pointer or the keyboard.

const TINT = "rgba(240, 60, 60, 0.55)";

export class Painter {
  constructor(canvas, covered) {
    this.canvas = canvas;
    this.covered = covered; // called with the share of the picture that the region covers
    this.context = canvas.getContext("2d");
    this.mask = document.createElement("canvas");
    this.ground = null;
    this.erases = false;
    this.brush = 12; // percent of the width
    this.at = null;
    this.last = null;
    this.shows = false; // the brush, while it is moved by keys
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => { this.last = null; this.#tell(); });
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => { this.shows = false; this.#draw(); });
  }

  // Takes a picture or video to paint on, or null; the region stays if its size is the same.
  setGround(ground, width = 0, height = 0) {
    this.ground = ground && width && height ? document.createElement("canvas") : null;
    this.canvas.parentElement.hidden = !this.ground;
    if (!this.ground) {
      Object.assign(this.mask, { width: 0, height: 0 });
      this.#tell();
      return;
    }
    for (const one of [this.ground, this.canvas]) Object.assign(one, { width, height });
    this.ground.getContext("2d").drawImage(ground, 0, 0, width, height);
    if (this.mask.width !== width || this.mask.height !== height) {
      Object.assign(this.mask, { width, height });
    }
    this.at = { x: width / 2, y: height / 2 };
    this.#draw();
    this.#tell();
  }

  // What is painted, for `restore`; null if there is nothing to paint on.
  region() {
    return this.ground && this.mask.getContext("2d")
      .getImageData(0, 0, this.mask.width, this.mask.height);
  }

  restore(region) {
    if (region.width !== this.mask.width || region.height !== this.mask.height) return;
    this.mask.getContext("2d").putImageData(region, 0, 0);
    this.#draw();
    this.#tell();
  }

  clear() {
    this.mask.getContext("2d").clearRect(0, 0, this.mask.width, this.mask.height);
    this.#draw();
    this.#tell();
  }

  invert() {
    const context = this.mask.getContext("2d");
    context.globalCompositeOperation = "xor";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, this.mask.width, this.mask.height);
    context.globalCompositeOperation = "source-over";
    this.#draw();
    this.#tell();
  }

  get share() {
    const { width, height } = this.mask;
    if (!this.ground || !width || !height) return 0;
    const { data } = this.mask.getContext("2d").getImageData(0, 0, width, height);
    let count = 0;
    for (let i = 3; i < data.length; i += 4) count += data[i] > 127;
    return count / (width * height);
  }

  // The region as a PNG, white where it is.
  async file() {
    const { width, height } = this.mask;
    const made = Object.assign(document.createElement("canvas"), { width, height });
    const context = made.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.drawImage(this.mask, 0, 0);
    const picture = context.getImageData(0, 0, width, height);
    for (let i = 0; i < picture.data.length; i += 4) { // no half-covered pixels at the border
      picture.data.fill(picture.data[i] > 127 ? 255 : 0, i, i + 3);
    }
    context.putImageData(picture, 0, 0);
    return new Promise((resolve) => made.toBlob(resolve, "image/png"));
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width * this.canvas.width,
             y: (event.clientY - box.top) / box.height * this.canvas.height };
  }

  #down(event) {
    if (!this.ground || event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.shows = false;
    this.last = this.#place(event);
    this.#paint(this.last, this.last);
  }

  #move(event) {
    if (!this.last) return;
    const place = this.#place(event);
    this.#paint(this.last, place);
    this.last = this.at = place;
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.ground || !(event.key in moves || event.key === " ")) return;
    event.preventDefault();
    const { width, height } = this.canvas;
    const from = this.at;
    if (event.key !== " ") {
      const step = Math.max(width / (event.shiftKey ? 8 : 32), 1);
      const [dx, dy] = moves[event.key];
      this.at = { x: Math.min(Math.max(from.x + dx * step, 0), width),
                  y: Math.min(Math.max(from.y + dy * step, 0), height) };
    }
    this.shows = true;
    if (event.key === " ") this.#paint(from, this.at);
    this.#draw();
    this.#tell();
  }

  #paint(from, to) {
    const context = this.mask.getContext("2d");
    context.globalCompositeOperation = this.erases ? "destination-out" : "source-over";
    context.strokeStyle = context.fillStyle = "#fff";
    context.lineWidth = this.#size();
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + 0.01, to.y); // a line without length has no ends
    context.stroke();
    context.globalCompositeOperation = "source-over";
    this.#draw();
  }

  #size() {
    return Math.max(this.brush / 100 * this.canvas.width, 1);
  }

  #draw() {
    if (!this.ground) return;
    const { width, height } = this.canvas;
    const tint = Object.assign(document.createElement("canvas"), { width, height });
    const over = tint.getContext("2d");
    over.drawImage(this.mask, 0, 0);
    over.globalCompositeOperation = "source-in";
    over.fillStyle = TINT;
    over.fillRect(0, 0, width, height);
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(this.ground, 0, 0);
    this.context.drawImage(tint, 0, 0);
    if (this.shows) {
      this.context.strokeStyle = "#fff";
      this.context.lineWidth = Math.max(width / 160, 1);
      this.context.beginPath();
      this.context.arc(this.at.x, this.at.y, this.#size() / 2, 0, 2 * Math.PI);
      this.context.stroke();
    }
  }

  #tell() {
    this.covered(this.share);
  }
}
