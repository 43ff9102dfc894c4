/** Maps field errors of the API to paths such as "schedules.0.cron". */
export function errorsOf(fields: readonly { location: string; message: string }[]): Record<string, string> {
  const out: Record<string, string> = {}
  for (const f of fields) {
    const path = f.location.replace(/^body\.?/, '').replace(/\[(\d+)\]/g, '.$1')
    out[path] = out[path] ? `${out[path]}; ${f.message}` : f.message
  }
  return out
}
