/**
 * A file whose pages processes map: its page cache.
 *
 * Source: mm/shmem.c (memfd), mm/filemap.c; mm/gup.c:writable_file_mapping_allowed (which files a
 * long-term pin may write to).
 */
import { assert } from "../../errors.ts";
import { FrameMap } from "./frame-map.ts";
import type { FrameTable } from "./frame-table.ts";

/** Hears of pages that leave a file. */
export interface FileMapper {
  /** Takes the pages out of every mapping of the file, before they are freed. */
  unmapFile(file: MemoryFile, firstPage: number, lastPage: number): void;
}

/** A file. */
export class MemoryFile {
  /** Frames of the pages that are in memory, by page of the file. */
  readonly frames = new FrameMap();
  /** Length in pages; what lies beyond gives SIGBUS. */
  readonly pages: number;
  /**
   * Whether a file system tracks who dirties the pages, as on disk; a memfd's does not. GUP refuses
   * a long-term pin for writing then.
   */
  readonly tracksDirty: boolean;
  /** Opened for reading only: a shared mapping cannot become writable. */
  readonly isReadOnly: boolean;
  /** Who maps it. */
  readonly mappers = new Set<FileMapper>();
  /** Where its frames come from, once somebody maps it. */
  #table: FrameTable | null = null;

  constructor(options: {
    readonly pages: number;
    readonly tracksDirty?: boolean;
    readonly isReadOnly?: boolean;
  }) {
    this.pages = options.pages;
    this.tracksDirty = options.tracksDirty ?? false;
    this.isReadOnly = options.isReadOnly ?? false;
  }

  /** Somebody maps it, whose frames are of the same machine as those of all who did before. */
  addMapper(mapper: FileMapper, table: FrameTable): void {
    this.#table ??= table;
    assert(this.#table === table, "address spaces that map one file have one source of frames");
    this.mappers.add(mapper);
  }
}
