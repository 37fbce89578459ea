// Search on pages that are opened as files: a browser starts no worker for `file:`, so an iframe takes its place. The theme would load
// a script for this from another host (https://squidfunk.github.io/mkdocs-material/setup/building-for-offline-usage/).
if (location.protocol === "file:") {
  // Runs in the iframe, so that its messages have the iframe as their source.
  const inside = `<!doctype html><body><script>
    postMessage = (data) => parent.postMessage(data, "*");
    importScripts = async (...urls) => {
      for (const url of urls) await load(url);
    };
    load = (url) => new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = url;
      script.onload = resolve;
      script.onerror = () => reject(new Error("cannot load " + url));
      document.body.append(script);
    });
  </script></body>`;

  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.scope = this.frame.contentWindow;
      this.scope.document.open();
      this.scope.document.write(inside);
      this.scope.document.close();
      window.addEventListener("message", (event) => {
        if (event.source !== this.scope) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        this.onmessage?.(message);
      });
      this.ready = this.scope.load(url);
    }

    async postMessage(data) {
      await this.ready;
      this.scope.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
