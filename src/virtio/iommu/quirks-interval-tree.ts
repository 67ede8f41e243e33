/**
 * The order in which QEMU meets a domain's mappings: a balanced binary tree of intervals in which
 * two intervals that overlap compare equal.
 *
 * Source: hw/virtio/virtio-iommu.c, interval_cmp, virtio_iommu_unmap; GLib's GTree is an AVL tree
 * that replaces a node with two children by its successor. Which of several overlapping mappings a
 * look-up meets first depends on the shape of the tree, so the shape is kept here as it is there.
 * Only a device with the quirk `qemu-unmap-not-atomic` has one.
 */

/** One mapping: first and last address as frame and offset. */
export interface Interval {
  readonly startPfn: number;
  readonly startOffset: number;
  readonly lastPfn: number;
  readonly lastOffset: number;
}

interface TreeNode {
  interval: Interval;
  left: TreeNode | null;
  right: TreeNode | null;
  height: number;
}

/** −1 when the first interval ends before the second starts, 1 the other way round, else 0. */
function compare(a: Interval, b: Interval): number {
  if (isBelow(a.lastPfn, a.lastOffset, b.startPfn, b.startOffset)) return -1;
  return isBelow(b.lastPfn, b.lastOffset, a.startPfn, a.startOffset) ? 1 : 0;
}

function isBelow(aPfn: number, aOffset: number, bPfn: number, bOffset: number): boolean {
  return aPfn < bPfn || (aPfn === bPfn && aOffset < bOffset);
}

/** Whether `inner` lies in `outer`, ends included. */
export function contains(outer: Interval, inner: Interval): boolean {
  return (
    !isBelow(inner.startPfn, inner.startOffset, outer.startPfn, outer.startOffset) &&
    !isBelow(outer.lastPfn, outer.lastOffset, inner.lastPfn, inner.lastOffset)
  );
}

/** The tree. */
export class IntervalTree {
  #root: TreeNode | null = null;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** The first interval met that compares equal, or null. */
  find(interval: Interval): Interval | null {
    let node = this.#root;
    while (node !== null) {
      const order = compare(interval, node.interval);
      if (order === 0) return node.interval;
      node = order < 0 ? node.left : node.right;
    }
    return null;
  }

  /** Adds an interval that compares equal to none on its way. */
  insert(interval: Interval): void {
    this.#root = insertBelow(this.#root, interval);
    this.#count += 1;
  }

  /** Removes the first interval met that compares equal. @returns false when there is none */
  remove(interval: Interval): boolean {
    if (this.find(interval) === null) return false;
    this.#root = removeBelow(this.#root, interval);
    this.#count -= 1;
    return true;
  }
}

function heightOf(node: TreeNode | null): number {
  return node === null ? 0 : node.height;
}

function measure(node: TreeNode): TreeNode {
  node.height = Math.max(heightOf(node.left), heightOf(node.right)) + 1;
  return node;
}

function rotateRight(node: TreeNode): TreeNode {
  const top = node.left!;
  node.left = top.right;
  top.right = measure(node);
  return measure(top);
}

function rotateLeft(node: TreeNode): TreeNode {
  const top = node.right!;
  node.right = top.left;
  top.left = measure(node);
  return measure(top);
}

/** Restores the balance of a node whose subtrees are balanced and differ by two at most. */
function balance(node: TreeNode): TreeNode {
  const lean = heightOf(node.right) - heightOf(node.left);
  if (lean < -1) {
    const left = node.left!;
    if (heightOf(left.right) > heightOf(left.left)) node.left = rotateLeft(left);
    return rotateRight(node);
  }
  if (lean > 1) {
    const right = node.right!;
    if (heightOf(right.left) > heightOf(right.right)) node.right = rotateRight(right);
    return rotateLeft(node);
  }
  return measure(node);
}

function insertBelow(node: TreeNode | null, interval: Interval): TreeNode {
  if (node === null) return { interval, left: null, right: null, height: 1 };
  if (compare(interval, node.interval) < 0) node.left = insertBelow(node.left, interval);
  else node.right = insertBelow(node.right, interval);
  return balance(node);
}

function removeBelow(node: TreeNode | null, interval: Interval): TreeNode | null {
  if (node === null) return null;
  const order = compare(interval, node.interval);
  if (order < 0) node.left = removeBelow(node.left, interval);
  else if (order > 0) node.right = removeBelow(node.right, interval);
  else {
    if (node.left === null) return node.right;
    if (node.right === null) return node.left;
    let successor = node.right;
    while (successor.left !== null) successor = successor.left;
    node.interval = successor.interval;
    node.right = removeFirst(node.right);
  }
  return balance(node);
}

function removeFirst(node: TreeNode): TreeNode | null {
  if (node.left === null) return node.right;
  node.left = removeFirst(node.left);
  return balance(node);
}
