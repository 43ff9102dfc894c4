import { load, opened, report, take, url } from './check.mjs';

const { EventSource } = await load('eventsource');
const source = new EventSource(url);
source.onopen = opened;
for (const name of ['status', 'log', 'complete']) {
  source.addEventListener(name, (e) => take(name, e.lastEventId, e.data));
}
// It is not closed here when complete comes: 204 has to do that.
source.onerror = (e) => {
  if (source.readyState === EventSource.CLOSED) report(e.code === 204 ? '204' : `closed: ${e.code} ${e.message}`);
};
