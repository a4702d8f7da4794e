package state_test

import (
	"testing"
	"time"

	"leadpipe/internal/state"
)

type inner struct {
	A int `json:"a"`
}

type outer struct {
	N     int              `json:"n"`
	At    time.Time        `json:"at,omitzero"`
	In    *inner           `json:"in,omitempty"`
	Parts map[string]inner `json:"parts,omitempty"`
	List  []inner          `json:"list,omitempty"`
}

// A record keeps what its writer's type does not know: the fields of a newer release, and
// those that an operator has added.
func TestUnknownFieldsStay(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.store(nil)
	change := func(tx *state.Tx) error {
		r, _, err := state.Get[outer](tx, "lead.1")
		if err != nil {
			return err
		}
		r.N++
		delete(r.Parts, "gone")
		if r.Parts != nil {
			r.Parts["new"] = inner{A: 9}
		}
		return tx.Put("lead.1", r)
	}
	for stored, want := range map[string]string{
		`{"n":1}`:                                                     `{"n":2}`,
		`{"n":1,"assigned_to":"Zoé <x>"}`:                             `{"n":2,"assigned_to":"Zoé <x>"}`,
		`{"z":[1, {"q":2}], "n":1, "a":null}`:                         `{"n":2,"a":null,"z":[1,{"q":2}]}`,
		`{"n":1,"at":"2026-11-24T10:00:00Z","x":1}`:                   `{"n":2,"at":"2026-11-24T10:00:00Z","x":1}`,
		`{"n":1,"in":{"a":3,"b":4}}`:                                  `{"n":2,"in":{"a":3,"b":4}}`,
		`{"n":1,"parts":{"gone":{"a":1,"b":2},"kept":{"a":3,"b":4}}}`: `{"n":2,"parts":{"kept":{"a":3,"b":4},"new":{"a":9}}}`,
		`{"N":1}`: `{"n":2}`, // encoding/json reads it as n
	} {
		b.put("lead.1", stored)
		if err := s.Update(t.Context(), change); err != nil {
			t.Errorf("%s: %v", stored, err)
			continue
		}
		if got := b.value("lead.1"); got != want {
			t.Errorf("%s became %s, not %s", stored, got, want)
		}
	}
	// A record that is written without having been read keeps them too.
	b.put("lead.1", `{"n":1,"assigned_to":"Zoé"}`)
	if err := s.Update(t.Context(), func(tx *state.Tx) error { return tx.Put("lead.1", outer{N: 5}) }); err != nil {
		t.Error(err)
	}
	if got, want := b.value("lead.1"), `{"n":5,"assigned_to":"Zoé"}`; got != want {
		t.Errorf("written blindly: %s", got)
	}
	before := b.lastSequence()
	if err := s.Update(t.Context(), func(tx *state.Tx) error { return tx.Put("lead.1", outer{N: 5}) }); err != nil {
		t.Error(err)
	}
	if got := b.lastSequence(); got != before {
		t.Error("the same record was written again")
	}
}
