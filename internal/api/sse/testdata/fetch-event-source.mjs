import { load, opened, report, take, url } from './check.mjs';

// It is made for browsers and asks these two.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };

const { fetchEventSource } = await load('@microsoft/fetch-event-source');

class Ended extends Error {}
class Again extends Error {}

try {
  await fetchEventSource(url, {
    openWhenHidden: true,
    async onopen(response) {
      if (response.status === 204) throw new Ended('204');
      if (!response.ok) throw new Ended(`status ${response.status}`);
      opened();
    },
    onmessage(m) {
      if (m.event) take(m.event, m.id, m.data);
    },
    onclose() {
      throw new Again('the server closed the stream');
    },
    onerror(err) {
      if (err instanceof Ended) throw err; // else it comes back after the time it was told
    },
  });
  report('returned');
} catch (err) {
  report(err.message);
}
