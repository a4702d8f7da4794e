// Package state is the crm bucket as consumers see it: a set of records that
// change together or not at all.
//
// A decision is a function over a Tx. It reads records, changes some, and returns:
//
//	err := store.Update(ctx, func(tx *state.Tx) error {
//		lead, ok, err := state.Get[contracts.Lead](tx, contracts.KeyLead(id))
//		…
//		return tx.Put(contracts.KeyLead(id), lead)
//	})
//
// Nothing is locked. The Tx remembers the revision of each key that was read, and
// the commit is refused when one of them is no longer the newest; the function then
// runs again on fresh records. So it must have no effect but through its Tx. One
// changed key is one publish, several are one atomic batch (ADR-50), and a record
// whose bytes did not change is not written: a replay writes nothing.
//
// Fold runs many decisions over one Tx and commits once, since a batch costs the
// same few milliseconds whether it holds two records or two hundred. A decision that
// fails leaves no trace, and the others go on.
package state
