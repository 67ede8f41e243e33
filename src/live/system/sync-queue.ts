/** Syncs of files that complete while the caller does something else. */

/** A sync that has completed. */
export interface SyncDone {
  readonly id: number;
  /** 0, or an error number: then it is not known what of the file is on the disk. */
  readonly errno: number;
}

/** A queue of such syncs. */
export interface SyncQueue {
  /** An event counter: readable when something has completed. */
  readonly fd: number;
  /** Syncs of which {@link take} has not told yet. */
  readonly pending: number;
  /**
   * Starts a sync of data written before (fdatasync). The descriptor may be closed afterwards.
   *
   * @param id - comes back with the completion
   * @returns 0, or a negative error: EAGAIN when as many wait as the queue holds
   */
  start(fd: number, id: number): number;
  /** What has completed since the last call. */
  take(): readonly SyncDone[];
  /** Waits for the rest and lets go of everything. */
  dispose(): void;
}
