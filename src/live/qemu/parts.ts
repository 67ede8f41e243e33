/**
 * What the project's scripts keep in the cache folder: a QEMU, a kernel, busybox and fio out of
 * Debian's packages. The scripts are plain JavaScript beside the sources, so that they run before
 * anything is built; this is their typed face.
 */

/** Folders and versions of what was fetched. */
export interface Parts {
  readonly release: string;
  readonly versions: Readonly<Record<string, string>>;
}

/** What a guest's RAM disk is made of: see scripts/vm/initrd.mjs. */
export interface GuestContents {
  /** Text of a shell script. */
  readonly script: string;
  /** Kernel modules; what they depend on comes by itself. */
  readonly modules: readonly string[];
  readonly parameters?: Readonly<Record<string, string>>;
  /** Path in the guest → content. */
  readonly files?: Readonly<Record<string, Uint8Array | string>>;
}

/** The scripts' functions that are used. */
export interface PartsScripts {
  readonly readParts: () => Parts | null;
  readonly qemuCommand: (parts: Parts) => [string, ...string[]];
  readonly vmlinuz: (parts: Parts) => string;
  readonly buildInitrd: (parts: Parts, guest: GuestContents) => Uint8Array;
  readonly fetchParts: () => Parts;
}

/** What scripts/vm/fio.mjs has. */
export interface FioScript {
  /** What was fetched, or null. */
  readonly readFio: () => object | null;
  readonly fetchFio: () => object;
  /** fio with the libraries it needs: path in the guest → content. */
  readonly fioFiles: (fio: object) => Record<string, Uint8Array>;
  /** Words that start it in the guest. */
  readonly guestCommand: string;
}

/** The scripts lie at the same distance from the sources and from what is built. */
async function load<T>(name: string): Promise<T> {
  const url = new URL(`../../../scripts/vm/${name}.mjs`, import.meta.url);
  return (await import(url.href)) as T;
}

/** Loads the scripts. */
export async function loadScripts(): Promise<PartsScripts> {
  const [parts, initrd, fetch] = await Promise.all(
    ["parts", "initrd", "fetch"].map((name) => load<PartsScripts>(name)),
  );
  return { ...parts!, ...initrd!, ...fetch! };
}

/** Loads the script that knows of fio. */
export function loadFioScript(): Promise<FioScript> {
  return load<FioScript>("fio");
}

/** Words that start the QEMU of the cache folder; null when none was fetched. */
export async function cachedQemu(): Promise<[string, ...string[]] | null> {
  const scripts = await loadScripts();
  const parts = scripts.readParts();
  return parts === null ? null : scripts.qemuCommand(parts);
}
