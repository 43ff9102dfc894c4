import { at } from '@/lib/base'
import { ApiError, toLogin } from '@/api/client'

/** Returns a name that the server accepts, similar to the name of the file. */
export function safeName(name: string): string {
  let out = name
    .replace(/[/\\:*?"<>|`$'\u0000-\u001f\u007f]/g, '_')
    .replace(/^[.\- ]+/, '')
    .replace(/ +$/, '')
  const bytes = (s: string) => new TextEncoder().encode(s).length
  const dot = out.lastIndexOf('.')
  const tail = dot > 0 && out.length - dot < 12 ? out.slice(dot) : ''
  let head = tail ? out.slice(0, dot) : out
  while (bytes(head + tail) > 100) head = [...head].slice(0, -1).join('')
  out = head + tail
  return out || 'file'
}

export async function putFile(conversation: string, file: File, name: string): Promise<void> {
  const r = await fetch(at(`/api/v1/conversations/${conversation}/files/${encodeURIComponent(name)}`), {
    method: 'PUT',
    body: file,
    headers: { 'Content-Type': 'application/octet-stream' },
  })
  if (r.ok) return
  if (r.status === 401) toLogin()
  const p = (await r.json().catch(() => ({}))) as { detail?: string }
  throw new ApiError(p.detail ?? `The server returned status ${r.status}.`, r.status)
}
