// Package sheets keeps a Google spreadsheet equal to the crm bucket, beside people
// who edit it.
//
// A row belongs to the key in its first column, wherever people have moved it. Google
// has no way to write a row only if it still is where it was read, so a person who
// sorts in that very moment makes us write into somebody else's row. Three rules make
// every such accident mendable from what is then in the sheet, by any writer, with
// nothing remembered:
//
//   - A write touches either a row's key or its other cells, never both. Cells that
//     landed in a wrong row are seen by that row's key. A key that landed in a wrong
//     row is seen by the cells beside it, which tell whose row it is.
//   - A key is written together with a mark in one of the row's columns, which goes when
//     the cells are written. So a row whose key and cells disagree is no riddle: with
//     the mark the cells are right, without it the key is.
//   - While a key is in the wrong row, nothing but keys is written, and new rows come
//     when all old ones are right. A new row takes two steps: its key below everything,
//     and when a second look finds it in an otherwise blank row, its cells. Nothing is
//     ever appended: a repeated append makes a second row.
//
// So the key stays together with what people wrote into the same row: those columns
// are never written, and nearly never read.
//
// The rules need one writer at a time: two could do to one row, without seeing it, what
// each alone would mend. So Google itself refuses the writes of all but the newest
// writer, and late ones of that (fence.go).
//
// What is known of a tab between two calls is where its columns are and which key is in
// which row (page.go, form.go, index.go): some ten megabytes for 100,000 rows. It is only
// ever a guess. Handle (task.go, apply.go) reads exactly the rows that it is about, the
// headings, and what is below the last row, before it writes and after; so a changed row
// costs the same however many there are. Where a key is not where it was, all keys are
// read again and what a wrong moment did to them is mended. An audit (audit.go) compares
// rows with the records of their keys in slices, and adds what is missing in slices: a
// slice is one look and what is to be written next. Between two of them changes go first,
// also those of the very rows that the audit is writing, and the calls of a slice are paid
// for before it begins. It ends at the rows that there were when it began. Where quota is
// short, changes wait for it before they are handled and not one by one within it (Wait).
//
// What Google does not let us write is set aside by its place (faults.go): a cell, a
// column, a protected or merged range, a tab. Everything else goes on, and one incident a
// place says why until the place can be written.
//
// Columns are found by their heading (layout.go), wherever people have put them; of
// several with a heading of ours, the one that holds what ours should, or else stands where
// ours should. Times are serial numbers on the clocks of the spreadsheet's time zone, and
// amounts are in the currency's major unit (render.go).
//
// What stays open: a column that a person inserts left of ours in the very moment of a
// write. The rows of that write are then told by neither key nor cells; their records
// come back in other rows, and a person's notes stay where they are.
//
// A deleted record's row is emptied, but the row stays, with what people added.
//
// Row-bound developer metadata would be an address that survives sorting, but Google
// stores too little of it for a row each, and nobody promises how it sorts.
package sheets
