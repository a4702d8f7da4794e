package sheets

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
)

// The tabs, in the order in which they are created.
const (
	leadsTab = iota
	clientsTab
	churnTab
	optOutsTab
	incidentsTab
	numTabs
)

// A tab is a sheet of ours: its title and its columns, the key first.
type tab struct {
	title   string
	columns []string
}

// tabs is INTERFACE section 5. Nothing changes it.
var tabs = [numTabs]tab{
	leadsTab: {"Leads", []string{"id", "created_at", "name", "phone", "email", "form_id", "status", "opted_out_at", "customer_id", "updated_at"}},
	clientsTab: {"Clients", []string{"customer_id", "name", "email", "phone", "lead_id", "status", "access", "subscription_id", "price_id",
		"amount", "currency", "current_period_end", "failed_attempts", "updated_at"}},
	churnTab:     {"Churn", []string{"subscription_id", "customer_id", "email", "price_id", "amount", "currency", "ended_at", "reason"}},
	optOutsTab:   {"Opt-outs", []string{"phone", "opted_out_at", "keyword", "confirmed_at", "provider_blocked_at"}},
	incidentsTab: {"Incidents", []string{"id", "at", "severity", "consumer", "reason", "action"}},
}

// A rowID names a row: the tab, and the key in its first column.
type rowID struct {
	tab int
	key string
}

// rowOf says in which row a key's record is shown: none (false) for keys that have
// no row of their own, such as a subscription, which is part of its customer's.
func rowOf(key string) (rowID, bool) {
	kind, rest, _ := strings.Cut(key, ".")
	switch kind {
	case "lead":
		return rowID{leadsTab, rest}, true
	case "customer":
		return rowID{clientsTab, rest}, true
	case "churn":
		return rowID{churnTab, rest}, true
	case "optout":
		return rowID{optOutsTab, "+" + rest}, true
	case "incident":
		return rowID{incidentsTab, rest}, true
	}
	return rowID{}, false
}

// deleted says whether a revision is the marker of `nats kv del` or `purge`.
func deleted(m contracts.Message) bool {
	op := m.Header["KV-Operation"]
	return len(m.Data) == 0 || op == "DEL" || op == "PURGE"
}

// render gives the row of a record that fills one by itself: all but customers.
// An unreadable record is a permanent error.
func render(id rowID, m contracts.Message) ([]any, error) {
	var err error
	var cells []any
	switch id.tab {
	case leadsTab:
		var l contracts.Lead
		err = json.Unmarshal(m.Data, &l)
		cells = []any{instant(l.CreatedAt), l.Name, l.Phone, l.Email, l.FormID, string(l.Status), instant(l.OptedOutAt), l.CustomerID, instant(m.Time)}
	case churnTab:
		var c contracts.Churn
		err = json.Unmarshal(m.Data, &c)
		cells = []any{c.CustomerID, c.Email, c.PriceID, minor(c.Amount), c.Currency, instant(c.EndedAt), c.Reason}
	case optOutsTab:
		var o contracts.OptOut
		err = json.Unmarshal(m.Data, &o)
		cells = []any{instant(o.OptedOutAt), o.Keyword, instant(o.ConfirmedAt), instant(o.ProviderBlockedAt)}
	case incidentsTab:
		var i contracts.Incident
		err = json.Unmarshal(m.Data, &i)
		cells = []any{instant(i.At), string(i.Severity), i.Consumer, i.Reason, i.Action}
	}
	if err != nil {
		return nil, outcome.Permanentf(outcome.Malformed, "reading a record for tab %s: %w", tabs[id.tab].title, err)
	}
	return tidy(append([]any{id.key}, cells...)), nil
}

// renderClient gives a customer's row. subs are those of its subscriptions that have
// a record.
//
// The row's updated_at is the newest time that the two records tell of, since it has
// to be the same whichever of the two changes was seen first.
func renderClient(key string, c contracts.Customer, subs []contracts.Subscription) []any {
	updated := c.Since
	for _, f := range c.Facts {
		updated = later(updated, f.At)
	}
	var sub, price, currency, period string
	var amount, failed any = "", ""
	if s, ok := shown(subs); ok {
		sub, price, currency, period = s.ID, s.PriceID, s.Currency, instant(s.CurrentPeriodEnd)
		amount, failed = minor(s.Amount), int64(s.FailedAttempts)
		updated = later(updated, later(s.AsOf, s.EndedAt))
	}
	return tidy([]any{key, c.Name, c.Email, c.Phone, c.LeadID, string(c.Status), string(c.Access),
		sub, price, amount, currency, period, failed, instant(updated)})
}

// shown picks the one subscription that a customer's row has room for: of those that
// run the one with the newest snapshot, or of all when none runs. Between equals the
// greater id, so that the choice never depends on the order.
func shown(subs []contracts.Subscription) (contracts.Subscription, bool) {
	if len(subs) == 0 {
		return contracts.Subscription{}, false
	}
	running := func(s contracts.Subscription) int {
		if s.EndedAt.IsZero() && s.Status != "canceled" && s.Status != "incomplete_expired" {
			return 1
		}
		return 0
	}
	return slices.MaxFunc(subs, func(a, b contracts.Subscription) int {
		if d := running(a) - running(b); d != 0 {
			return d
		}
		if d := a.AsOf.Compare(b.AsOf); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	}), true
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// minor is an amount's cell; one that is not known is empty.
func minor(amount *int64) any {
	if amount == nil {
		return ""
	}
	return *amount
}

// instant writes a time as text, in UTC; the zero time as nothing.
func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// maxCell is the most that Google takes in one cell, counted as its editor counts:
// in UTF-16 units.
const maxCell = 50_000

// cutMark ends a text that did not fit.
const cutMark = " […]"

// tidy makes every text one that a cell gives back as it was written: valid UTF-8,
// no control characters but tabs and line breaks, not too long.
func tidy(cells []any) []any {
	for i, c := range cells {
		if s, ok := c.(string); ok {
			cells[i] = tidyText(s)
		}
	}
	return cells
}

func tidyText(s string) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\r\n", "\n")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return '\n'
		case r < ' ' && r != '\n' && r != '\t', r == 0x7f:
			return -1
		}
		return r
	}, s)
	if len(s) <= maxCell { // never fewer bytes than UTF-16 units
		return s
	}
	total, fits := 0, 0 // fits: bytes that leave room for the mark
	room := maxCell - len(utf16.Encode([]rune(cutMark)))
	for i, r := range s {
		if total <= room {
			fits = i
		}
		total += utf16.RuneLen(r)
	}
	if total <= maxCell {
		return s
	}
	return s[:fits] + cutMark
}

// text is how a cell's value compares, whether it was rendered or read back: Google
// answers every number as a float.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strings.ToUpper(strconv.FormatBool(v))
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1e18 {
			return strconv.FormatInt(int64(v), 10)
		}
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return ""
}
