/**
 * Path of the application with a trailing slash: "/" at the root of a host,
 * "/agented/" under a base path. Scripts are in assets/, one folder below it.
 */
export const base = import.meta.env.DEV ? '/' : new URL('../', import.meta.url).pathname

/** Returns the URL of a path on the server, for example "/api/v1/triggers". */
export const at = (path: string): string => base + path.replace(/^\//, '')
