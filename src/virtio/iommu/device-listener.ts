/**
 * Who hears of changes in a virtio-iommu device: translation caches, and back ends that keep a copy
 * of the mappings (V73, V87, V88).
 *
 * Every call happens before the request that caused it is answered, so a cache that drops what it
 * is told of never translates through something that a driver was told is gone. Addresses are frame
 * and offset; last addresses are inclusive.
 */
export interface IommuListener {
  /**
   * A range was mapped in a domain.
   *
   * @returns false when the back end cannot take it: the mapping is taken back, and the driver gets
   *   DEVERR
   */
  mapped?(
    domain: number,
    startPfn: number,
    startOffset: number,
    lastPfn: number,
    lastOffset: number,
    physPfn: number,
    physOffset: number,
    flags: number,
  ): boolean;
  /** Nothing of a range translates in a domain any more. */
  unmapped?(
    domain: number,
    startPfn: number,
    startOffset: number,
    lastPfn: number,
    lastOffset: number,
  ): void;
  /** An endpoint is attached elsewhere, or bypasses from now on, or no longer does. */
  endpointChanged?(endpoint: number): void;
  /** A fault record waits for the event queue. */
  faulted?(): void;
  /** A domain and everything mapped in it is gone; its ID may come back for another. */
  domainRemoved?(domain: number): void;
}
