package incident

import (
	"slices"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/state"
)

// Raise opens the incident of a report, or counts one more occurrence in it. An
// occurrence that was counted already, or that is older than what closed the incident,
// changes nothing. An error is the transaction's, to be returned as it is.
func Raise(tx *state.Tx, r Report) error {
	if r.Standing {
		if open, err := stands(tx, r); err != nil || open {
			return err
		}
	}
	return raise(tx, occurrence{Report: r, kind: kindReport, member: r.ID})
}

// stands says whether the incident of a report is open, by itself or joined by others.
func stands(tx *state.Tx, r Report) (bool, error) {
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return false, err
	}
	for _, x := range index.Open {
		if x.ID == r.ID {
			return true, nil
		}
		if x.Kind != kindReport || !x.Joined || x.Consumer != r.Consumer {
			continue
		}
		i, _, err := state.Peek[contracts.Incident](tx, contracts.KeyIncident(x.ID))
		if err != nil || slices.Contains(i.Members, r.ID) {
			return err == nil, err
		}
	}
	return false, nil
}

// Resolve closes the incident of that cause, as of at. One that is not there, or closed,
// stays as it is. It may be called after every success: where no incident is open the
// commit does not come to depend on it.
func Resolve(tx *state.Tx, id string, at time.Time) error {
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	for _, x := range index.Open {
		if x.Kind != kindReport || x.ID != id && !x.Joined {
			continue
		}
		i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(x.ID))
		switch {
		case err != nil:
			return err
		case !ok:
			continue
		case x.ID == id:
			return closeIt(tx, i, at)
		case !slices.Contains(i.Members, id):
			continue
		}
		i.Members = slices.DeleteFunc(i.Members, func(m string) bool { return m == id })
		if len(i.Members) == 0 {
			return closeIt(tx, i, at)
		}
		return tx.Put(contracts.KeyIncident(x.ID), i)
	}
	return nil
}

// ResolveAll closes the incidents of the causes that match, as Resolve does. Those that
// joined others stay.
func ResolveAll(tx *state.Tx, match func(id string) bool, at time.Time) error {
	index, _, err := state.Peek[contracts.IncidentIndex](tx, contracts.KeyIncidentIndex)
	if err != nil {
		return err
	}
	for _, x := range index.Open {
		if x.Kind != kindReport || x.Joined || !match(x.ID) {
			continue
		}
		i, ok, err := state.Get[contracts.Incident](tx, contracts.KeyIncident(x.ID))
		if err != nil {
			return err
		}
		if ok {
			if err := closeIt(tx, i, at); err != nil {
				return err
			}
		}
	}
	return nil
}
