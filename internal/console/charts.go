package console

import (
	"hash/maphash"
	"strings"
	"time"

	"leadpipe/contracts"
)

// charts count what happened in each minute of the last hour.
type charts struct {
	seed    maphash.Seed
	minutes map[int64]*minute // by Unix minute
}

const hour = 60 // minutes

type minute struct {
	webhooks, leads, optouts int
	// A text's record changes several times, and not every revision is seen, so the texts
	// of a minute are told apart: 16 bytes each, for an hour.
	texts map[uint64]struct{}
}

func newCharts() *charts { return &charts{seed: maphash.MakeSeed(), minutes: map[int64]*minute{}} }

func (c *charts) at(t, now time.Time) *minute {
	m, last := t.Unix()/60, now.Unix()/60
	if m <= last-hour || m > last+1 {
		return nil
	}
	if c.minutes[m] == nil {
		for old := range c.minutes {
			if old <= last-hour {
				delete(c.minutes, old)
			}
		}
		c.minutes[m] = &minute{texts: map[uint64]struct{}{}}
	}
	return c.minutes[m]
}

func (c *charts) webhook(subject string, t, now time.Time) {
	m := c.at(t, now)
	if m == nil {
		return
	}
	m.webhooks++
	switch {
	case subject == contracts.SubjectFacebookLeadgen:
		m.leads++
	case strings.HasPrefix(subject, contracts.PrefixTwilioOptOut):
		m.optouts++
	}
}

func (c *charts) text(key string, sent, now time.Time) {
	if m := c.at(sent, now); m != nil && !sent.IsZero() {
		m.texts[maphash.String(c.seed, key)] = struct{}{}
	}
}

// A chart is one series, the oldest minute first.
type chartsView struct {
	To       int64     `json:"to"` // Unix milliseconds of the last minute's begin
	Webhooks [hour]int `json:"webhooks"`
	Leads    [hour]int `json:"leads"`
	Texts    [hour]int `json:"texts"`
	Optouts  [hour]int `json:"optouts"`
}

func (c *charts) view(now time.Time) chartsView {
	last := now.Unix() / 60
	v := chartsView{To: last * 60_000}
	for i := range hour {
		if m := c.minutes[last-hour+1+int64(i)]; m != nil {
			v.Webhooks[i], v.Leads[i], v.Texts[i], v.Optouts[i] = m.webhooks, m.leads, len(m.texts), m.optouts
		}
	}
	return v
}
