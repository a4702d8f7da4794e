package console

import (
	"slices"

	"leadpipe/contracts"
)

// mostIncidents bounds what is remembered of open incidents; the pipeline itself keeps
// at most 100 open.
const mostIncidents = 200

// incidents are those that are open, by id.
type incidents struct{ open map[string]contracts.Incident }

func newIncidents() *incidents { return &incidents{map[string]contracts.Incident{}} }

// set enters an incident's record; nil is one that was deleted. It says whether that
// changed anything that is shown.
func (s *incidents) set(id string, i *contracts.Incident) bool {
	if i == nil || !i.ResolvedAt.IsZero() {
		_, was := s.open[id]
		delete(s.open, id)
		return was
	}
	if _, was := s.open[id]; !was && len(s.open) >= mostIncidents {
		return false
	}
	kept := *i
	kept.Seen, kept.Members = nil, nil // not shown, and large
	s.open[id] = kept
	return true
}

// An incidentView is an open incident as the page shows it.
type incidentView struct {
	ID       masked `json:"id"`
	At       int64  `json:"at"`
	LastAt   int64  `json:"last_at"`
	Count    int    `json:"count"`
	Severity string `json:"severity"`
	Consumer string `json:"consumer"`
	Reason   masked `json:"reason"`
	Action   masked `json:"action"`
}

// view is the worst and newest first.
func (s *incidents) view(seal *sealer) []incidentView {
	all := make([]contracts.Incident, 0, len(s.open))
	for _, i := range s.open {
		all = append(all, i)
	}
	rank := map[contracts.Severity]int{contracts.SeverityError: 0, contracts.SeverityWarning: 1, contracts.SeverityInfo: 2}
	slices.SortFunc(all, func(a, b contracts.Incident) int {
		if d := rank[a.Severity] - rank[b.Severity]; d != 0 {
			return d
		}
		if d := b.LastAt.Compare(a.LastAt); d != 0 {
			return d
		}
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	out := make([]incidentView, 0, len(all))
	for _, i := range all {
		v := incidentView{ID: seal.text(i.ID), At: i.At.UnixMilli(), LastAt: i.LastAt.UnixMilli(), Count: max(1, i.Count),
			Severity: string(i.Severity), Consumer: i.Consumer, Reason: seal.text(i.Reason), Action: seal.text(i.Action)}
		if i.LastAt.IsZero() {
			v.LastAt = v.At
		}
		out = append(out, v)
	}
	return out
}
