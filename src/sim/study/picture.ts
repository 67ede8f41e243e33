/** What a simulated machine looks like: nodes, IOMMUs, and what is behind each, as plain data. */

/** An IOMMU, or a place without one. */
export interface PictureUnit {
  readonly name: string;
  /** What matters about it, in a line. */
  readonly detail: string;
  readonly devices: readonly string[];
}

/** A NUMA node. */
export interface PictureNode {
  readonly name: string;
  /** What is in it besides IOMMUs: CPUs, page tables. */
  readonly lines: readonly string[];
  readonly units: readonly PictureUnit[];
}

/** A machine. */
export interface MachinePicture {
  readonly nodes: readonly PictureNode[];
  /** What connects nodes, null for a single one. */
  readonly link: string | null;
}
