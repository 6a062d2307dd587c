// The picture or video that a task takes, and the frame to paint on.

const KINDS = {
  image: { label: "Picture", accept: "image/png,image/jpeg,image/webp" },
  video: { label: "Video", accept: "video/*,image/gif,.mkv" },
};

function filesOf(file) {
  const list = new DataTransfer();
  if (file) list.items.add(file);
  return list.files;
}

export class GivenFile {
  constructor(parts, painter, limits) {
    Object.assign(this, { ...parts, painter, limits, kind: null, file: null, kept: {} });
    this.input.addEventListener("change", () => this.take(this.input.files[0] || null));
    this.place.addEventListener("dragover", (event) => event.preventDefault());
    this.place.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
    });
  }

  // Shows the field for "image" or "video", or hides it. Each keeps its file and region, since the
  // arrow keys pass through other tasks.
  setKind(kind) {
    this.place.hidden = !kind;
    if (kind === this.kind) return;
    const painted = this.painter.region() || this.region; // or it is not restored yet
    if (this.kind) this.kept[this.kind] = { file: this.file, region: painted };
    this.kind = kind;
    const { file = null, region = null } = this.kept[kind] || {};
    this.take(file, region);
    if (!kind) return;
    this.label.textContent = KINDS[kind].label;
    this.input.accept = KINDS[kind].accept;
    this.input.files = filesOf(file);
  }

  take(file, region = null) {
    for (const shown of [this.picture, this.clip]) {
      if (shown.src) URL.revokeObjectURL(shown.src);
      shown.removeAttribute("src");
      shown.hidden = true;
    }
    this.file = file;
    if (!file) this.input.value = "";
    this.painter.setGround(null);
    this.region = region; // restored when the picture has loaded
    this.note.textContent = "";
    if (!file) return;
    if (file.size > this.limits.upload_bytes) {
      this.file = null;
      this.note.textContent = `${file.name} is too large: the limit is ` +
        `${Math.floor(this.limits.upload_bytes / 2 ** 20)} MiB.`;
      return;
    }
    this.note.textContent = file.name || "";
    const isGif = file.type === "image/gif";
    const shown = this.kind === "video" && !isGif ? this.clip : this.picture;
    shown.src = URL.createObjectURL(file);
    if (shown === this.picture) {
      shown.onload = () => this.#ground(shown, shown.naturalWidth, shown.naturalHeight);
    } else {
      shown.onloadeddata = () => this.#ground(shown, shown.videoWidth, shown.videoHeight);
    }
    shown.onerror = () => {
      shown.hidden = true;
      this.note.textContent = `This browser cannot show ${file.name || "the file"}; ` +
        "the server may still accept it, but you cannot paint on it.";
    };
  }

  #ground(shown, width, height) {
    if (!shown.src) return; // it was removed while it was loading
    shown.hidden = false;
    this.painter.setGround(shown, width, height);
    if (this.region) this.painter.restore(this.region);
    this.region = null;
    if (shown !== this.clip) return;
    const file = this.file;
    // A video that was hidden is drawn black until a frame of it has been shown.
    shown.requestVideoFrameCallback?.(() => {
      if (file === this.file) this.painter.setGround(shown, width, height);
    });
    shown.play().catch(() => {}); // only a browser that forbids it
  }
}
