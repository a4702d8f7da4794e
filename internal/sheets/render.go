package sheets

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
)

// render gives the row of a record that fills one by itself: all but customers.
// An unreadable record is a permanent error.
func render(id rowID, m contracts.Message) ([]any, error) {
	var err error
	var cells []any
	switch id.tab {
	case leadsTab:
		var l contracts.Lead
		err = json.Unmarshal(m.Data, &l)
		cells = []any{instant(l.CreatedAt), l.Name, l.Phone, l.Email, l.FormID, string(l.Status), instant(l.OptedOutAt), l.CustomerID, instant(m.Time),
			answers(l.Answers), l.Platform, l.CampaignID, l.AdID}
	case churnTab:
		var c contracts.Churn
		err = json.Unmarshal(m.Data, &c)
		cells = []any{c.CustomerID, c.Email, c.PriceID, major(c.Amount, c.Currency), c.Currency, instant(c.EndedAt), c.Reason}
	case optOutsTab:
		var o contracts.OptOut
		err = json.Unmarshal(m.Data, &o)
		cells = []any{instant(o.OptedOutAt), o.Keyword, instant(o.ConfirmedAt), instant(o.ProviderBlockedAt)}
	case incidentsTab:
		var i contracts.Incident
		err = json.Unmarshal(m.Data, &i)
		cells = []any{instant(i.At), string(i.Severity), i.Consumer, i.Reason, i.Action, int64(max(i.Count, 1)), instant(i.ResolvedAt)}
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
	var sub, price, currency string
	var amount, failed, period any = "", "", ""
	if s, ok := chosen(subs); ok {
		sub, price, currency, period = s.ID, s.PriceID, s.Currency, instant(s.CurrentPeriodEnd)
		amount, failed = major(s.Amount, s.Currency), int64(s.FailedAttempts)
		updated = later(updated, later(s.AsOf, s.EndedAt))
	}
	return tidy([]any{key, c.Name, c.Email, c.Phone, c.LeadID, string(c.Status), string(c.Access),
		sub, price, amount, currency, period, failed, instant(updated)})
}

// chosen picks the one subscription that a customer's row has room for: of those that
// run the one with the newest snapshot, or of all when none runs. Between equals the
// greater id, so that the choice never depends on the order.
func chosen(subs []contracts.Subscription) (contracts.Subscription, bool) {
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

// major is an amount in the currency's major unit: 59.9 for 5990 eur. One that is not
// known is empty.
func major(amount *int64, currency string) any {
	if amount == nil {
		return ""
	}
	return float64(*amount) / math.Pow10(decimals(currency))
}

// decimals is how many digits Stripe's minor unit of a currency stands for.
// https://docs.stripe.com/currencies#zero-decimal lists those without any, and
// https://docs.stripe.com/currencies#three-decimal those with three. The Icelandic króna
// and the Ugandan shilling are special cases there: they have no smaller unit, and Stripe
// still counts them in hundredths.
func decimals(currency string) int {
	switch strings.ToLower(currency) {
	case "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf":
		return 0
	case "bhd", "jod", "kwd", "omr", "tnd":
		return 3
	}
	return 2
}

// answers writes all answers of a form, a line each.
func answers(all map[string][]string) string {
	var lines []string
	for _, question := range slices.Sorted(maps.Keys(all)) {
		lines = append(lines, question+": "+strings.Join(all[question], ", "))
	}
	return strings.Join(lines, "\n")
}

// instant is a time's cell: a time.Time, or nothing for the zero time.
func instant(t time.Time) any {
	if t.IsZero() {
		return ""
	}
	return t
}

// serial gives a time as Google counts them: days since 1899-12-30 on the clocks of a
// time zone, by whole seconds.
// https://developers.google.com/workspace/sheets/api/guides/formats#about_date_time_values
func serial(t time.Time, zone *time.Location) float64 {
	_, offset := t.In(zone).Zone()
	return float64(t.Unix()+int64(offset))/86400 + 25569
}

// inZone makes cells ready to be written: times become serial numbers.
func inZone(cells []any, zone *time.Location) []any {
	out := make([]any, len(cells))
	for i, c := range cells {
		out[i] = c
		if t, ok := c.(time.Time); ok {
			out[i] = serial(t, zone)
		}
	}
	return out
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

// shown is a column's text made comparable: a moment counts by the second, since a
// serial number may come back with other last digits.
func (k kind) shown(text string) string {
	if k != moment || text == "" {
		return text
	}
	days, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	return "@" + strconv.FormatInt(int64(math.Round(days*86400)), 10)
}
