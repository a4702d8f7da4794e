package console

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
)

// Bounds of what is remembered. The page shows the newest entries; those before are
// kept a little longer, since what they cause may come late.
const (
	shown       = 60
	remembered  = 240
	mostEffects = 24 // of one webhook; a lead has four
	mostMarks   = 8  // of one effect: queued, sending, sent, delivered
	longestText = 160
)

// An entry is one webhook and what it caused, with the milliseconds from its arrival.
type entry struct {
	Seq      uint64    `json:"seq"`
	At       int64     `json:"at"` // Unix milliseconds
	Subject  masked    `json:"subject"`
	Provider string    `json:"provider"`
	Kind     string    `json:"kind"`
	Name     masked    `json:"name,omitzero"`
	Phone    masked    `json:"phone,omitzero"`
	Text     masked    `json:"text,omitzero"`
	Amount   int64     `json:"amount,omitempty"`
	Currency string    `json:"currency,omitempty"`
	Attempt  int       `json:"attempt,omitempty"`
	Durable  string    `json:"durable"`
	Handled  *int64    `json:"handled,omitempty"` // ms until the durable was past it; of old ones not known
	Effects  []*effect `json:"effects"`
	Sheet    *int64    `json:"sheet,omitempty"` // ms until its rows were in the spreadsheet
	Past     bool      `json:"past,omitempty"`  // from before this console ran: its times are those of the last revision

	at      time.Time
	ids     ids
	rows    uint64 // the last revision that has a row
	handled bool
}

// An effect is a record that a webhook caused to be written.
type effect struct {
	Key   masked `json:"key"`
	Kind  string `json:"kind"` // "lead", "sms.welcome", …
	Marks []mark `json:"marks"`
	key   string
}

// A mark is a status that a record took, and when.
type mark struct {
	State string `json:"s"`
	MS    int64  `json:"ms"`
}

// A book associates changes of records with the webhooks that caused them. Feed it in
// the order of time. It is not safe for concurrent use.
type book struct {
	entries []*entry             // oldest first
	written map[string]time.Time // by key: its last change
}

func newBook() *book { return &book{written: map[string]time.Time{}} }

// webhook enters a webhook.
func (b *book) webhook(m contracts.Message, s *sealer, past bool) *entry {
	h := readWebhook(m)
	e := &entry{Seq: m.Sequence, At: m.Time.UnixMilli(), Subject: s.text(m.Subject), Provider: h.provider, Kind: h.kind,
		Name: s.text(short(h.name)), Phone: s.phone(h.number), Text: s.text(short(h.text)), Amount: h.amount, Currency: h.currency,
		Attempt: h.attempt, Durable: h.durable, Effects: []*effect{}, Past: past, at: m.Time, ids: h.ids}
	b.entries = append(b.entries, e)
	if len(b.entries) > remembered {
		b.entries = slices.Delete(b.entries, 0, len(b.entries)-remembered)
		oldest := b.entries[0].at
		if len(b.written) > 16*remembered {
			for k, t := range b.written {
				if t.Before(oldest) {
					delete(b.written, k)
				}
			}
		}
	}
	return e
}

// change enters a record's revision and gives the webhooks that it belongs to.
//
// One commit may answer several webhooks, so a revision belongs to every webhook that
// names its key and came since the revision before. Where none did, it goes on with
// what an earlier one began, as a text's delivery does: then to the latest that names
// it. Only where no webhook names the key itself do those count that name somebody
// whom the record mentions.
func (b *book) change(c change, sequence uint64, at time.Time, s *sealer) []*entry {
	last := b.written[c.key]
	b.written[c.key] = at
	var since []*entry          // named or mentioned, and not answered yet
	var named, mentioned *entry // the latest of each that was
	var origin *entry           // the latest that is no news of a text
	for _, e := range b.entries {
		own := common(e.ids, c.own)
		if own && e.Kind != "status" && !e.at.After(at) && e.may(c) {
			origin = e
		}
		switch {
		case e.at.After(at):
		case !own && !common(e.ids, c.others):
		case !e.may(c):
		case e.at.After(last.Add(-fetch)):
			since = append(since, e)
		case own:
			named = e
		default:
			mentioned = e
		}
	}
	causes := lastBurst(since)
	if own := slices.DeleteFunc(slices.Clone(causes), func(e *entry) bool { return !common(e.ids, c.own) }); len(own) > 0 {
		causes = own
	}
	if e := cmp.Or(named, mentioned); len(causes) == 0 && e != nil {
		causes = []*entry{e}
	}
	if strings.HasPrefix(c.kind, "sms.") && origin != nil && !slices.Contains(causes, origin) {
		causes = append(slices.Clip(causes), origin) // a text's whole way is told where it began
	}
	for _, e := range causes {
		e.add(c, sequence, at, s)
	}
	return causes
}

// burst is how far apart webhooks may be that one commit answers.
const burst = 2 * time.Second

// fetch is how long before a commit a webhook may have come that was not in it yet.
const fetch = 15 * time.Millisecond

// may says whether a webhook of this kind can cause such a change at all.
func (e *entry) may(c change) bool {
	if e.Provider == "twilio" && e.Kind == "status" {
		bad := e.Text.Text == "failed" || e.Text.Text == "undelivered" // perhaps since the number is blocked
		return bad || strings.HasPrefix(c.kind, "sms.") && e.Text.Text == c.state
	}
	switch c.kind {
	case "sms.welcome":
		return e.Provider == "facebook"
	case "sms.payment_failed":
		return e.Provider == "stripe"
	case "sms.optout_confirmation", "optout":
		return e.Kind == "optout"
	case "incident":
		return true
	}
	return e.Kind != "inbound" || strings.HasPrefix(c.kind, "sms.") // a text that is for a person
}

// lastBurst is the newest entries that came together.
func lastBurst(es []*entry) []*entry {
	for i := len(es) - 1; i > 0; i-- {
		if es[i].at.Sub(es[i-1].at) > burst {
			return es[i:]
		}
	}
	return es
}

func (e *entry) add(c change, sequence uint64, at time.Time, s *sealer) {
	if c.name != "" && e.Name.Text == "" {
		e.Name = s.text(short(c.name))
	}
	if c.number != "" && e.Phone.Text == "" {
		e.Phone = s.phone(c.number)
	}
	if c.sheet {
		e.rows, e.Sheet = max(e.rows, sequence), nil
	}
	i := slices.IndexFunc(e.Effects, func(x *effect) bool { return x.key == c.key })
	if i < 0 {
		if len(e.Effects) == mostEffects {
			return
		}
		e.Effects = append(e.Effects, &effect{Key: s.text(c.key), Kind: c.kind, key: c.key, Marks: []mark{}})
		i = len(e.Effects) - 1
	}
	x := e.Effects[i]
	m := mark{State: short(c.state), MS: max(0, at.Sub(e.at).Milliseconds())}
	if n := len(x.Marks); n > 0 && x.Marks[n-1].State == m.State {
		return // written again, without a new status
	}
	if len(x.Marks) < mostMarks {
		x.Marks = append(x.Marks, m)
	}
	slices.SortStableFunc(e.Effects, func(a, b *effect) int { return cmp.Compare(a.Marks[0].MS, b.Marks[0].MS) })
}

// A reach is how far a durable is: it is past every message up to a sequence, and was so
// at a time at the latest.
type reach struct {
	sequence uint64
	at       time.Time
}

// progress notes how far durables are, and gives the entries that this changes.
func (b *book) progress(reached map[string]reach) []*entry {
	var changed []*entry
	for _, e := range b.entries {
		touched := false
		if r := reached[e.Durable]; !e.handled && r.sequence >= e.Seq {
			e.handled, touched = true, true
			if !e.Past {
				e.Handled = new(max(0, r.at.Sub(e.at).Milliseconds()))
			}
		}
		if r := reached[contracts.Sheets]; e.Sheet == nil && e.rows > 0 && r.sequence >= e.rows {
			touched = true
			ms := int64(0)
			if !e.Past {
				ms = max(0, r.at.Sub(e.at).Milliseconds())
			}
			e.Sheet = &ms
		}
		if touched {
			changed = append(changed, e)
		}
	}
	return changed
}

// waiting says whether a durable still has to do with one of the newest entries.
func (b *book) waiting(now time.Time) bool {
	for _, e := range slices.Backward(b.entries) {
		if now.Sub(e.at) > time.Minute {
			return false
		}
		if !e.handled || e.rows > 0 && e.Sheet == nil {
			return true
		}
	}
	return false
}

// newest are the entries to show, newest first.
func (b *book) newest() []*entry {
	out := slices.Clone(b.entries[max(0, len(b.entries)-shown):])
	slices.Reverse(out)
	return out
}

func common(a, b ids) bool {
	for id := range b {
		if a[id] {
			return true
		}
	}
	return false
}

// short cuts a text between characters.
func short(s string) string {
	r := []rune(s)
	if len(r) <= longestText {
		return s
	}
	return string(r[:longestText]) + "…"
}
