package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"leadpipe/internal/outcome"
)

// A Tx is one attempt at a commit. It belongs to one goroutine, and to the function
// that it was given to.
type Tx struct {
	ctx     context.Context
	store   *Store
	entries map[string]*entry
	undo    []change // since the last mark, newest last
	reads   []string // keys that the running decision looked at

	inline bool     // read from the server at once; otherwise note the key in unread
	unread []string // keys that the running decision needs and that are not here yet

	again  bool     // the running decision wants to run once more
	guards []string // keys that the last kept decision was the first to depend on
}

// An entry is a key's record: as the server has it, and as it will be.
type entry struct {
	revision uint64 // the stream sequence that the commit expects; 0: no message yet
	stored   []byte // nil: no record
	current  []byte
	guarded  bool // a decision that changes something else depends on it
	unknown  bool // stored has, or may have, fields that our type lacks

	peeked   any    // what Peek made of peekedOf
	peekedOf []byte // current as it was then
}

func newEntry(r revision) *entry {
	return &entry{revision: r.revision, stored: r.data, current: r.data, unknown: r.data != nil}
}

func (e *entry) changed() bool { return string(e.current) != string(e.stored) }

type change struct {
	key  string
	prev []byte
}

// errUnread ends a decision whose records are not here yet. Fold fetches them, for
// all decisions in one round trip, and runs the decision again.
var errUnread = errors.New("record not read yet")

// Context is the context of the Update or Fold behind the transaction.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Get reads a key's record into a value of type T; false where there is none. A
// record that can't be decoded is a permanent error. Any other error must be
// returned from the decision as it is.
func Get[T any](tx *Tx, key string) (T, bool, error) {
	var record T
	data, err := tx.read(key)
	if err != nil || data == nil {
		return record, false, err
	}
	unknown, err := decode(data, &record)
	if err != nil {
		return record, false, outcome.Permanentf(outcome.Malformed, "record of kind %q is not readable: %w", kind(key), err)
	}
	tx.entries[key].unknown = unknown
	return record, true, nil
}

// Peek is Get for a decision that does not depend on the record: the commit goes
// through even if the record changes meanwhile. The value is shared by all that peek,
// and must not be changed.
func Peek[T any](tx *Tx, key string) (T, bool, error) {
	var record T
	if !validKey(key) {
		return record, false, outcome.Permanentf(outcome.Malformed, "not a key of the bucket: kind %q", kind(key))
	}
	if err := tx.Need(key); err != nil {
		return record, false, err
	}
	e := tx.entries[key]
	if len(e.current) == 0 {
		return record, false, nil
	}
	if v, ok := e.peeked.(T); ok && &e.peekedOf[0] == &e.current[0] && len(e.peekedOf) == len(e.current) {
		return v, true, nil
	}
	if err := json.Unmarshal(e.current, &record); err != nil {
		return record, false, outcome.Permanentf(outcome.Malformed, "record of kind %q is not readable: %w", kind(key), err)
	}
	e.peeked, e.peekedOf = record, e.current
	return record, true, nil
}

// Again says that the decision is not finished: what it changed so far is committed,
// and then it runs once more. So a decision that changes more records than one commit
// takes is done in steps, each of which has to leave the records in a state that is
// right by itself, and has to get on. A step that changes nothing may not ask for it.
func (tx *Tx) Again() { tx.again = true }

// Keep wraps the error of a decision whose changes stand all the same: what is known by
// now is committed, and its message is treated as the error says. In Fold only; nil stays
// nil.
func Keep(err error) error {
	if err == nil {
		return nil
	}
	return &kept{err}
}

type kept struct{ err error }

func (k *kept) Error() string { return k.err.Error() }
func (k *kept) Unwrap() error { return k.err }

// Put changes a key's record. The key is read too, so that nobody's change in
// between is overwritten. Fields of the stored record that record's type lacks stay.
func (tx *Tx) Put(key string, record any) error {
	if !validKey(key) {
		return outcome.Permanentf(outcome.Malformed, "not a key of the bucket: kind %q", kind(key))
	}
	if _, err := tx.read(key); err != nil {
		return err
	}
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encoding a record of kind %q: %w", kind(key), err)
	}
	e := tx.entries[key]
	if e.unknown && e.current != nil {
		data = carry(e.current, data, reflect.TypeOf(record))
	}
	if string(e.current) == string(data) {
		return nil
	}
	tx.undo = append(tx.undo, change{key, e.current})
	e.current = data
	return nil
}

// Delete takes a key's record away, as `nats kv del` does. A key without one stays as it is.
func (tx *Tx) Delete(key string) error {
	data, err := tx.read(key)
	if err != nil || data == nil {
		return err
	}
	tx.undo = append(tx.undo, change{key, data})
	tx.entries[key].current = nil
	return nil
}

// Need announces keys that the decision is about to read, so that they come in one
// round trip. It is a hint: reading a key without it is right too.
func (tx *Tx) Need(keys ...string) error {
	var missing []string
	for _, k := range keys {
		if _, ok := tx.entries[k]; !ok && validKey(k) && !slices.Contains(missing, k) {
			missing = append(missing, k)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if tx.inline {
		return tx.load(missing)
	}
	tx.unread = append(tx.unread, missing...)
	return errUnread
}

func (tx *Tx) read(key string) ([]byte, error) {
	if !validKey(key) {
		return nil, outcome.Permanentf(outcome.Malformed, "not a key of the bucket: kind %q", kind(key))
	}
	if err := tx.Need(key); err != nil {
		return nil, err
	}
	tx.reads = append(tx.reads, key)
	return tx.entries[key].current, nil
}

// seed enters records that are known already. A replica that is late may have answered
// with less than we know.
func (tx *Tx) seed(seeds []Seed) {
	for _, s := range seeds {
		if e := tx.entries[s.Key]; e != nil && e.revision >= s.Revision {
			continue
		}
		r := revision{revision: s.Revision, data: s.Data}
		if len(s.Data) == 0 {
			r.data = nil
		}
		tx.entries[s.Key] = newEntry(r)
	}
}

// load fetches keys from the server, replacing what was known of them.
func (tx *Tx) load(keys []string) error {
	found, err := tx.store.fetch(tx.ctx, keys)
	if err != nil {
		return err
	}
	for _, k := range keys {
		tx.entries[k] = newEntry(found[k]) // zero: no message on the key
	}
	return nil
}

// begin starts a decision: what it changes can be undone until the next one begins.
func (tx *Tx) begin() {
	tx.undo, tx.reads, tx.unread, tx.guards = tx.undo[:0], tx.reads[:0], tx.unread[:0], tx.guards[:0]
	tx.again = false
}

// rollback undoes the running decision, or the one that was kept last.
func (tx *Tx) rollback() {
	for _, c := range slices.Backward(tx.undo) {
		tx.entries[c.key].current = c.prev
	}
	for _, k := range tx.guards {
		tx.entries[k].guarded = false
	}
	tx.undo, tx.reads, tx.guards, tx.again = tx.undo[:0], tx.reads[:0], tx.guards[:0], false
}

// keep ends a decision. One that changed something depends on all that it read.
func (tx *Tx) keep() {
	if len(tx.undo) == 0 {
		return
	}
	for _, k := range tx.reads {
		if e := tx.entries[k]; !e.guarded {
			e.guarded = true
			tx.guards = append(tx.guards, k)
		}
	}
}

// progress says whether a decision that wants to run again has done something.
func (tx *Tx) progress() error {
	if tx.again && len(tx.undo) == 0 {
		return outcome.Permanentf(outcome.Internal, "a decision asks to run again and has changed nothing")
	}
	return nil
}

// full says whether a commit would take more than the server does.
func (tx *Tx) full() bool { return len(tx.entries) > maxBatch && tx.size() > maxBatch }

// size is how many messages a commit would take.
func (tx *Tx) size() int {
	n := 0
	for _, e := range tx.entries {
		if e.changed() || e.guarded {
			n++
		}
	}
	return n
}

// validKey says whether a key-value bucket takes the key.
func validKey(key string) bool {
	if key == "" || key[0] == '.' || key[len(key)-1] == '.' {
		return false
	}
	for i := range len(key) {
		switch c := key[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '/', c == '=':
		case c == '.' && key[i-1] != '.':
		default:
			return false
		}
	}
	return true
}

// kind is the first part of a key, which is fit for an error: the rest may be a phone.
func kind(key string) string {
	for i := range len(key) {
		if key[i] == '.' {
			return key[:i]
		}
	}
	return key[:min(len(key), 20)]
}
