//! Vectors as bytes: JSON Lines, one object per text, and NumPy's array format.

use std::io::{BufRead, Read};

use serde::Serialize;

/// How vectors are written.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One JSON object per line: index, file, line, embedding
    Jsonl,
    /// A NumPy array of 32-bit floats, texts x dimensions
    Npy,
}

/// Bytes before the first row of an array: room for any shape, so that the header can be written
/// again when the number of rows is known.
const NPY_HEADER_BYTES: usize = 128;

/// A text's vector with what JSON Lines say about it.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    /// Counted from 0 over the whole input.
    pub(super) index: u64,
    /// The file that the text is from; absent for stdin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<&'a str>,
    /// The line in it; absent for whole files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    /// The vector.
    pub(super) embedding: &'a [f32],
}

impl Format {
    /// What a file of this format begins with, when it holds `rows` vectors of `dimensions`.
    pub(super) fn header(self, rows: u64, dimensions: usize) -> Vec<u8> {
        match self {
            Format::Jsonl => Vec::new(),
            Format::Npy => npy_header(rows, dimensions),
        }
    }

    /// Appends a row to `bytes`.
    pub(super) fn push_row(self, row: &Row<'_>, bytes: &mut Vec<u8>) {
        match self {
            Format::Jsonl => {
                // Writing to a Vec cannot fail, and the model's values are finite; were one not,
                // the writer says null, as JSON knows no other word for it.
                let _ = serde_json::to_writer(&mut *bytes, row);
                bytes.push(b'\n');
            }
            Format::Npy => {
                bytes.extend(row.embedding.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    }

    /// Checks the beginning of a file that was being written when the program was stopped: how many
    /// whole rows it holds, and at which byte the last of them ends. `None` if it is not such a
    /// file.
    pub(super) fn whole_rows(
        self,
        file: &mut impl BufRead,
        dimensions: usize,
    ) -> std::io::Result<Option<(u64, u64)>> {
        match self {
            Format::Jsonl => whole_lines(file),
            Format::Npy => whole_vectors(file, dimensions),
        }
    }
}

/// Version 1.0 of the format, as numpy.lib.format describes it: magic, version, header length, a
/// Python dictionary padded with blanks, a line end.
fn npy_header(rows: u64, dimensions: usize) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let text_bytes = NPY_HEADER_BYTES - bytes.len() - 2;
    // 118 fits two bytes.
    bytes.extend((text_bytes as u16).to_le_bytes());
    let text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimensions}), }}");
    bytes.extend(format!("{text:<width$}\n", width = text_bytes - 1).bytes());
    bytes
}

fn whole_lines(file: &mut impl BufRead) -> std::io::Result<Option<(u64, u64)>> {
    let (mut rows, mut end) = (0, 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        file.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(Some((rows, end)));
        }
        // A row of zeros, which some filesystems leave after a power cut, is no row.
        if !line.starts_with(format!("{{\"index\":{rows},").as_bytes()) {
            return Ok(if rows == 0 { None } else { Some((rows, end)) });
        }
        rows += 1;
        end += line.len() as u64;
    }
}

fn whole_vectors(
    file: &mut impl BufRead,
    dimensions: usize,
) -> std::io::Result<Option<(u64, u64)>> {
    let header = npy_header(0, dimensions);
    let mut found = Vec::with_capacity(header.len());
    file.by_ref()
        .take(header.len() as u64)
        .read_to_end(&mut found)?;
    if found != header {
        // A file that ends within its header has no rows; anything else is not ours.
        return Ok(header.starts_with(&found).then_some((0, 0)));
    }
    let bytes = std::io::copy(file, &mut std::io::sink())?;
    let rows = bytes / (dimensions as u64 * 4);
    Ok(Some((
        rows,
        header.len() as u64 + rows * dimensions as u64 * 4,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(format: Format, rows: u64) -> (Vec<u8>, Vec<u64>) {
        let mut bytes = format.header(0, 3);
        let mut ends = vec![bytes.len() as u64];
        for index in 0..rows {
            let embedding = [index as f32, -0.5, 1e-9];
            let row = Row {
                index,
                file: Some("a \"b\".txt"),
                line: Some(7),
                embedding: &embedding,
            };
            format.push_row(&row, &mut bytes);
            ends.push(bytes.len() as u64);
        }
        (bytes, ends)
    }

    #[test]
    fn rows_look_as_documented() {
        let (bytes, _) = file_of(Format::Jsonl, 2);
        let text = String::from_utf8(bytes).expect("text");
        let expected = r#"{"index":1,"file":"a \"b\".txt","line":7,"embedding":[1.0,-0.5,1e-9]}"#;
        assert_eq!(text.lines().nth(1), Some(expected));

        let header = Format::Npy.header(12, 384);
        assert_eq!(header.len(), NPY_HEADER_BYTES);
        assert_eq!(&header[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let text = String::from_utf8_lossy(&header[10..]);
        assert!(text.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (12, 384), }"));
        assert!(text.ends_with(" \n"));
        assert_eq!(
            Format::Npy.header(u64::MAX, usize::MAX).len(),
            NPY_HEADER_BYTES
        );
    }

    #[test]
    fn every_truncation_gives_the_rows_before_it() {
        for format in [Format::Jsonl, Format::Npy] {
            let (bytes, ends) = file_of(format, 4);
            for len in 0..=bytes.len() {
                let found = format.whole_rows(&mut &bytes[..len], 3).expect("readable");
                let (rows, end) = found.expect("ours");
                let whole = ends.iter().filter(|&&end| end <= len as u64).count() as u64;
                assert_eq!(rows, whole.saturating_sub(1), "{format:?} cut at {len}");
                assert!(end <= len as u64);
                assert!(rows == 0 || end == ends[rows as usize]);
            }
        }
    }

    #[test]
    fn other_files_are_not_taken_for_ours() {
        for format in [Format::Jsonl, Format::Npy] {
            let other = b"something else\nentirely\n".repeat(20);
            assert_eq!(
                format.whole_rows(&mut &other[..], 3).expect("readable"),
                None
            );
        }
        let (bytes, _) = file_of(Format::Npy, 2);
        assert_eq!(
            Format::Npy
                .whole_rows(&mut &bytes[..], 4)
                .expect("readable"),
            None
        );
        let (mut bytes, ends) = file_of(Format::Jsonl, 3);
        bytes.truncate(ends[1] as usize);
        bytes.extend(b"\0\0\0\n");
        let found = Format::Jsonl
            .whole_rows(&mut &bytes[..], 3)
            .expect("readable");
        assert_eq!(found, Some((1, ends[1])));
    }
}
