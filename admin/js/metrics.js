/** Prometheus text, as far as the console reads it: counters by name, histograms, errors by code. */

const LINE = /^([a-z_]+)(?:\{([a-z]+)="([^"]*)"\})? (\S+)$/;

export function parseMetrics(text) {
  const plain = new Map();
  const labelled = new Map();
  for (const line of text.split('\n')) {
    const found = LINE.exec(line);
    if (!found) continue;
    const [, name, , value, number] = found;
    if (value === undefined) {
      plain.set(name, Number(number));
    } else {
      if (!labelled.has(name)) labelled.set(name, []);
      labelled.get(name).push([value, Number(number)]);
    }
  }
  return {
    value: (name) => plain.get(name) ?? 0,
    labelled: (name) => labelled.get(name) ?? [],
    /** `[[upper bound, cumulative count], …]` */
    histogram: (name) => (labelled.get(`${name}_bucket`) ?? []).map(([le, n]) => [le === '+Inf' ? Infinity : Number(le), n]),
  };
}

/** The q-quantile of what came between two readings, linear within a bucket; null when nothing did. */
export function quantile(now, before, q) {
  const counts = now.map(([le, n], i) => [le, n - (before[i]?.[1] ?? 0)]);
  const total = counts.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  let low = 0;
  let below = 0;
  for (const [le, n] of counts) {
    if (n >= q * total) {
      if (le === Infinity) return low;
      return low + (le - low) * ((q * total - below) / (n - below || 1));
    }
    low = le;
    below = n;
  }
  return low;
}
