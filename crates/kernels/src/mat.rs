//! Row-major matrices of `f32` as plain views: what every kernel takes and gives.
//!
//! A worker that writes some columns of every row needs a view that overlaps, in address range, the
//! views of its neighbours; slices cannot say that, so [`MatMut`] keeps a pointer and promises never to
//! touch anything but its own `rows x cols` elements. All of that `unsafe` is in this file.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// A read-only view of `rows x cols` values, `stride` values from one row's start to the next.
#[derive(Copy, Clone)]
pub struct MatRef<'a> {
    ptr: *const f32,
    rows: usize,
    cols: usize,
    stride: usize,
    life: PhantomData<&'a [f32]>,
}

/// A mutable view of `rows x cols` values, `stride` values from one row's start to the next.
///
/// Two views may share rows and differ in columns (see [`MatMut::split_at_col`]): each only ever
/// touches its own elements.
pub struct MatMut<'a> {
    ptr: *mut f32,
    rows: usize,
    cols: usize,
    stride: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `MatRef` is a bundle of `&[f32]` rows, which are `Send` and `Sync`.
unsafe impl Send for MatRef<'_> {}
// SAFETY: as above.
unsafe impl Sync for MatRef<'_> {}
// SAFETY: a `MatMut` is a bundle of `&mut [f32]` rows that nobody else holds; those are `Send`.
unsafe impl Send for MatMut<'_> {}
// SAFETY: through `&MatMut` elements can only be read, as through `& &mut [f32]`.
unsafe impl Sync for MatMut<'_> {}

/// Panics unless `rows x cols` at `stride` lies within `len` values.
#[track_caller]
fn check_extent(len: usize, rows: usize, cols: usize, stride: usize) {
    assert!(
        stride >= cols,
        "matrix rows overlap: {cols} columns at a stride of {stride}"
    );
    let needed = match rows.checked_sub(1) {
        None => Some(0),
        Some(before) => before.checked_mul(stride).and_then(|n| n.checked_add(cols)),
    };
    assert!(
        needed.is_some_and(|n| n <= len),
        "a matrix of {rows} x {cols} at a stride of {stride} does not fit in {len} values"
    );
}

impl<'a> MatRef<'a> {
    /// A view of the first `rows x cols` values of `data`, `stride` values from row to row.
    ///
    /// # Panics
    /// When `stride < cols`, or when the last row would end beyond `data`.
    #[track_caller]
    pub fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check_extent(data.len(), rows, cols, stride);
        Self {
            ptr: data.as_ptr(),
            rows,
            cols,
            stride,
            life: PhantomData,
        }
    }

    /// A view of rows that follow one another without a gap.
    ///
    /// # Panics
    /// When `data` is not exactly `rows * cols` long.
    #[track_caller]
    pub fn dense(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(
            Some(data.len()),
            rows.checked_mul(cols),
            "{rows} x {cols} values expected"
        );
        Self::new(data, rows, cols, cols)
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Values from one row's start to the next row's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The first value's address; valid for `cols` values every `stride`, `rows` times.
    pub fn as_ptr(&self) -> *const f32 {
        self.ptr
    }

    /// Row `i`.
    ///
    /// # Panics
    /// When there is no such row.
    #[track_caller]
    pub fn row(&self, i: usize) -> &'a [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: `i < rows`, so the row lies within the extent checked on construction (no overflow:
        // that product was checked too); shared for 'a.
        unsafe { std::slice::from_raw_parts(self.ptr.add(i * self.stride), self.cols) }
    }

    /// All values as one slice, when no gap lies between the rows.
    pub fn as_slice(&self) -> Option<&'a [f32]> {
        if self.rows > 1 && self.stride != self.cols {
            return None;
        }
        // SAFETY: rows are adjacent (or there is at most one), all within the checked extent.
        Some(unsafe { std::slice::from_raw_parts(self.ptr, self.rows * self.cols) })
    }

    /// The rows in `range`.
    ///
    /// # Panics
    /// When the range passes the end.
    #[track_caller]
    pub fn rows_in(&self, range: Range<usize>) -> MatRef<'a> {
        assert!(
            range.start <= range.end && range.end <= self.rows,
            "rows {range:?} of {}",
            self.rows
        );
        let rows = range.len();
        Self {
            ptr: offset(self.ptr, rows, range.start, self.stride),
            rows,
            ..*self
        }
    }

    /// The columns in `range`.
    ///
    /// # Panics
    /// When the range passes the end.
    #[track_caller]
    pub fn cols_in(&self, range: Range<usize>) -> MatRef<'a> {
        assert!(
            range.start <= range.end && range.end <= self.cols,
            "cols {range:?} of {}",
            self.cols
        );
        Self {
            ptr: offset(self.ptr, self.rows, range.start, 1),
            cols: range.len(),
            ..*self
        }
    }
}

/// `ptr + count * step`, or `ptr` itself for a view without rows, whose extent may end before that.
fn offset(ptr: *const f32, rows: usize, count: usize, step: usize) -> *const f32 {
    if rows == 0 {
        return ptr;
    }
    // SAFETY: the view has a row, so its first element's address (or the end of that row, for a view
    // without columns) lies within the checked extent.
    unsafe { ptr.add(count * step) }
}

impl<'a> MatMut<'a> {
    /// A view of the first `rows x cols` values of `data`, `stride` values from row to row.
    ///
    /// # Panics
    /// When `stride < cols`, or when the last row would end beyond `data`.
    #[track_caller]
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        check_extent(data.len(), rows, cols, stride);
        Self {
            ptr: data.as_mut_ptr(),
            rows,
            cols,
            stride,
            life: PhantomData,
        }
    }

    /// A view of rows that follow one another without a gap.
    ///
    /// # Panics
    /// When `data` is not exactly `rows * cols` long.
    #[track_caller]
    pub fn dense(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(
            Some(data.len()),
            rows.checked_mul(cols),
            "{rows} x {cols} values expected"
        );
        Self::new(data, rows, cols, cols)
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Values from one row's start to the next row's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The first value's address; valid for `cols` values every `stride`, `rows` times, and for nothing
    /// in between.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.ptr
    }

    /// Row `i`, to read.
    ///
    /// # Panics
    /// When there is no such row.
    #[track_caller]
    pub fn row(&self, i: usize) -> &[f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: within the checked extent; these elements are this view's alone, borrowed shared.
        unsafe { std::slice::from_raw_parts(self.ptr.add(i * self.stride), self.cols) }
    }

    /// Row `i`, to write.
    ///
    /// # Panics
    /// When there is no such row.
    #[track_caller]
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: within the checked extent; these elements are this view's alone, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(i * self.stride), self.cols) }
    }

    /// All values as one slice, when no gap lies between the rows.
    pub fn as_mut_slice(&mut self) -> Option<&mut [f32]> {
        if self.rows > 1 && self.stride != self.cols {
            return None;
        }
        // SAFETY: rows are adjacent (or there is at most one), all within the checked extent.
        Some(unsafe { std::slice::from_raw_parts_mut(self.ptr, self.rows * self.cols) })
    }

    /// The same elements, read-only, for as long as `self` is not written.
    pub fn as_ref(&self) -> MatRef<'_> {
        MatRef {
            ptr: self.ptr,
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
            life: PhantomData,
        }
    }

    /// A shorter-lived view of the same elements, so that `self` can be used again afterwards.
    pub fn reborrow(&mut self) -> MatMut<'_> {
        MatMut {
            life: PhantomData,
            ..*self
        }
    }

    /// Columns `..col` and `col..` of every row.
    ///
    /// # Panics
    /// When `col > cols`.
    #[track_caller]
    pub fn split_at_col(self, col: usize) -> (MatMut<'a>, MatMut<'a>) {
        assert!(col <= self.cols, "column {col} of {}", self.cols);
        let right = offset(self.ptr, self.rows, col, 1).cast_mut();
        (
            MatMut {
                cols: col,
                life: PhantomData,
                ..self
            },
            MatMut {
                ptr: right,
                cols: self.cols - col,
                life: PhantomData,
                ..self
            },
        )
    }

    /// Rows `..row` and `row..`.
    ///
    /// # Panics
    /// When `row > rows`.
    #[track_caller]
    pub fn split_at_row(self, row: usize) -> (MatMut<'a>, MatMut<'a>) {
        assert!(row <= self.rows, "row {row} of {}", self.rows);
        let below = offset(self.ptr, self.rows - row, row, self.stride).cast_mut();
        (
            MatMut {
                rows: row,
                life: PhantomData,
                ..self
            },
            MatMut {
                ptr: below,
                rows: self.rows - row,
                life: PhantomData,
                ..self
            },
        )
    }

    /// The columns in `range`; the others are given up.
    ///
    /// # Panics
    /// When the range passes the end.
    #[track_caller]
    pub fn cols_in(self, range: Range<usize>) -> MatMut<'a> {
        assert!(range.start <= range.end, "columns {range:?}");
        self.split_at_col(range.end).0.split_at_col(range.start).1
    }

    /// The rows in `range`; the others are given up.
    ///
    /// # Panics
    /// When the range passes the end.
    #[track_caller]
    pub fn rows_in(self, range: Range<usize>) -> MatMut<'a> {
        assert!(range.start <= range.end, "rows {range:?}");
        self.split_at_row(range.end).0.split_at_row(range.start).1
    }

    /// Sets every element.
    pub fn fill(&mut self, value: f32) {
        for i in 0..self.rows {
            self.row_mut(i).fill(value);
        }
    }

    /// Copies `from`, which must have the same shape.
    ///
    /// # Panics
    /// When the shapes differ.
    #[track_caller]
    pub fn copy_from(&mut self, from: MatRef<'_>) {
        assert_eq!(
            (self.rows, self.cols),
            (from.rows, from.cols),
            "shapes differ"
        );
        for i in 0..self.rows {
            self.row_mut(i).copy_from_slice(from.row(i));
        }
    }
}

impl fmt::Debug for MatRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MatRef({} x {}, stride {})",
            self.rows, self.cols, self.stride
        )
    }
}

impl fmt::Debug for MatMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MatMut({} x {}, stride {})",
            self.rows, self.cols, self.stride
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_written_from_two_threads() {
        let mut data = vec![0.0; 3 * 10];
        let (mut left, mut right) = MatMut::new(&mut data, 3, 7, 10).split_at_col(4);
        std::thread::scope(|scope| {
            scope.spawn(move || (0..3).for_each(|i| left.row_mut(i).fill(1.0)));
            scope.spawn(move || (0..3).for_each(|i| right.row_mut(i).fill(2.0)));
        });
        for row in data.chunks(10) {
            assert_eq!(row, [1., 1., 1., 1., 2., 2., 2., 0., 0., 0.]);
        }
    }

    #[test]
    fn splits_at_every_place_cover_every_element_once() {
        for (rows, cols, stride) in [
            (0, 0, 0),
            (0, 4, 4),
            (3, 0, 0),
            (3, 0, 2),
            (1, 5, 9),
            (4, 5, 6),
        ] {
            for row in 0..=rows {
                for col in 0..=cols {
                    let len = if rows == 0 {
                        0
                    } else {
                        (rows - 1) * stride + cols
                    };
                    let mut data = vec![0.0; len];
                    let (mut top, bottom) =
                        MatMut::new(&mut data, rows, cols, stride).split_at_row(row);
                    let (a, b) = top.reborrow().split_at_col(col);
                    let (c, d) = bottom.split_at_col(col);
                    for mut part in [a, b, c, d] {
                        for i in 0..part.rows() {
                            part.row_mut(i).iter_mut().for_each(|x| *x += 1.0);
                        }
                    }
                    assert_eq!(data.iter().sum::<f32>(), (rows * cols) as f32);
                    let all = MatRef::new(&data, rows, cols, stride);
                    assert!((0..rows).all(|i| all.row(i).iter().all(|&x| x == 1.0)));
                    assert_eq!(all.rows_in(row..rows).rows(), rows - row);
                    assert_eq!(all.cols_in(col..cols).cols(), cols - col);
                }
            }
        }
    }

    #[test]
    fn one_slice_only_without_gaps() {
        let mut data: Vec<f32> = (0..12).map(|i| i as f32).collect();
        assert_eq!(
            MatRef::dense(&data, 3, 4).as_slice().map(<[f32]>::len),
            Some(12)
        );
        assert!(MatRef::new(&data, 3, 3, 4).as_slice().is_none());
        assert_eq!(
            MatRef::new(&data, 1, 3, 4).as_slice(),
            Some(&[0.0, 1.0, 2.0][..])
        );
        let mut out = MatMut::new(&mut data, 2, 2, 6);
        out.copy_from(MatRef::dense(&[9.0; 4], 2, 2));
        assert_eq!(out.as_ref().rows_in(1..2).cols_in(1..2).row(0), [9.0]);
        assert!(out.as_mut_slice().is_none());
        assert_eq!(data[..8], [9., 9., 2., 3., 4., 5., 9., 9.]);
    }

    #[test]
    #[should_panic(expected = "does not fit in 8 values")]
    fn too_many_rows_are_refused() {
        let _ = MatRef::new(&[0.0; 8], 3, 3, 3);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn an_overflowing_extent_is_refused() {
        let _ = MatRef::new(&[0.0; 8], usize::MAX, 2, usize::MAX);
    }
}
