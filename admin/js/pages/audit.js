/** Who changed what, when, from where. */
import { get } from '../api.js';
import { h, put } from '../dom.js';
import { clock } from '../format.js';
import { list, table } from '../table.js';
import { code, label } from '../text.js';
import { empty } from '../widgets.js';

const columns = [
  { head: 'When', cell: (e) => clock(e.at) },
  { head: 'Who', cell: (e) => label(e.who) },
  { head: 'From', cell: (e) => code(e.from) },
  { head: 'What', cell: (e) => code(e.action) },
  { head: 'Details', class: 'wide', cell: (e) => code(e.detail) },
];

export function audit(page) {
  page.title('Audit log');
  const rows = list(page, {
    what: 'the audit log',
    everyMs: 6000,
    async load(next, signal) {
      const answer = await get('audit', { limit: 100, next }, signal);
      return { rows: answer.entries, next: answer.next };
    },
    draw: (entries) => table('Audit log', columns, entries, (e) => String(e.id)),
    none: () => empty('Nothing was changed yet', 'Every call of the admin API that changes something is written here, with its commit.'),
  });
  put(page.root, h('h1', null, 'Audit log'), rows.element);
}
