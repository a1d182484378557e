/** `--filter` values (`name=value`) as the API's `filters` parameter; undefined when there is none. */
export function filtersParameter(filters: readonly string[]): string | undefined {
  if (filters.length === 0) return undefined;
  const byName: Record<string, Record<string, true>> = Object.create(null);
  for (const filter of filters) {
    const equals = filter.indexOf("=");
    const name = filter.slice(0, equals);
    byName[name] ??= Object.create(null) as Record<string, true>;
    byName[name][filter.slice(equals + 1)] = true;
  }
  return JSON.stringify(byName);
}
