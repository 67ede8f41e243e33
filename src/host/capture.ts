/**
 * A capture of a host: an archive of exactly what reading it looked at.
 *
 * The reader runs on a tree that notes what it is asked for. So a capture holds all that is needed
 * and nothing else, and inspecting it gives what inspecting the host gave. Texts are noted after
 * what does not concern DMA was dropped from them; of configuration space only the pieces that were
 * read are kept, the rest is zero.
 */
import { gzipSync } from "node:zlib";
import { type TarMember, writeTar } from "./tar.ts";
import type { HostFile, HostTree } from "./tree.ts";

/** Member with what a tree knows beside its files. */
export const CAPTURE_NOTES = "/iommukit-capture.json";
const NO_BYTES = new Uint8Array(0);

/** A tree that notes what is read of another one. */
export class CapturingTree implements HostTree {
  readonly #tree: HostTree;
  readonly #files = new Map<string, Uint8Array>();
  readonly #links = new Map<string, string>();
  readonly #directories = new Set<string>();

  constructor(tree: HostTree) {
    this.#tree = tree;
  }

  get name(): string {
    return this.#tree.name;
  }

  get isLive(): boolean {
    return this.#tree.isLive;
  }

  get deniedCount(): number {
    return this.#tree.deniedCount;
  }

  list(path: string): readonly string[] | null {
    const names = this.#tree.list(path);
    if (names === null) {
      // A name in a listing that is a file, and that nobody wants to read.
      this.#directories.delete(path);
      return null;
    }
    this.#directories.add(path);
    for (const name of names) this.#directories.add(path === "/" ? `/${name}` : `${path}/${name}`);
    return names;
  }

  text(path: string, clean?: (text: string) => string): string | null {
    const text = this.#tree.text(path, clean);
    if (text !== null) this.#files.set(path, Buffer.from(text, "latin1"));
    return text;
  }

  bytes(path: string, max: number, clean?: (bytes: Uint8Array) => Uint8Array): Uint8Array | null {
    const bytes = this.#tree.bytes(path, max, clean);
    if (bytes !== null) this.#files.set(path, bytes);
    return bytes;
  }

  open(path: string): HostFile | null {
    const file = this.#tree.open(path);
    if (file === null) return null;
    let copy: Uint8Array = this.#files.get(path) ?? NO_BYTES;
    return {
      read: (at, bytes) => {
        const piece = file.read(at, bytes);
        copy = withPiece(copy, at, piece);
        return piece;
      },
      close: () => {
        this.#files.set(path, copy);
        file.close();
      },
    };
  }

  link(path: string): string | null {
    const target = this.#tree.link(path);
    if (target !== null) this.#links.set(path, target);
    return target;
  }

  /** What was noted, as a gzip-compressed tar archive. */
  archive(): Uint8Array {
    const members: TarMember[] = [];
    const member = (path: string, kind: TarMember["kind"], bytes: Uint8Array, target: string) =>
      members.push({ path: path.slice(1), kind, bytes, target });
    for (const path of this.#directories) {
      if (path === "/" || this.#files.has(path) || this.#links.has(path)) continue;
      member(path, "directory", NO_BYTES, "");
    }
    for (const [path, bytes] of this.#files) member(path, "file", bytes, "");
    for (const [path, target] of this.#links)
      member(path, "link", NO_BYTES, relative(path, target));
    const notes = { schema: "iommukit/capture@1", denied: this.deniedCount };
    member(CAPTURE_NOTES, "file", Buffer.from(`${JSON.stringify(notes)}\n`), "");
    members.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
    return new Uint8Array(gzipSync(writeTar(members), { level: 9 }));
  }
}

/** Copies a piece into what is kept of a file, which grows with zeros as far as it must. */
function withPiece(kept: Uint8Array, at: number, piece: Uint8Array): Uint8Array {
  if (piece.length === 0) return kept;
  let copy = kept;
  if (at + piece.length > kept.length) {
    copy = new Uint8Array(at + piece.length);
    copy.set(kept);
  }
  copy.set(piece, at);
  return copy;
}

/** A link's target as seen from the link, so that an unpacked archive holds together. */
function relative(path: string, target: string): string {
  const from = path.split("/").slice(1, -1);
  const to = target.split("/").slice(1);
  let shared = 0;
  while (shared < from.length && shared < to.length - 1 && from[shared] === to[shared]) shared += 1;
  return [...from.slice(shared).map(() => ".."), ...to.slice(shared)].join("/");
}
