package sheets

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"leadpipe/contracts"
)

// settle has the writer do all there is to do, the rows of its own incidents included.
func (r *rig) settle(tb testing.TB, w *Writer) {
	tb.Helper()
	r.handle(tb, w)
	r.audit(tb, w)
	r.handle(tb, w)
}

// What people put on top of cells sets aside what it covers, with one incident, and
// nothing else. When it is gone the sheet becomes right, and the incident is closed.
func TestWhatPeopleBar(t *testing.T) {
	t.Parallel()
	at := func(name string) int { return slices.Index(tabs[leadsTab].names(), name) + 1 }
	for name, c := range map[string]struct {
		do, undo func(g hands) error
		words    []string        // of the incident
		aside    func(int) bool  // whose rows are not complete, of ten
		lacks    map[string]bool // of these columns; nil: of all
	}{
		"two cells of a row merged": {
			do:    func(g hands) error { return g.paper.Merge(g.title, 4, at("name"), 4, at("phone")) },
			undo:  func(g hands) error { return g.paper.Unmerge(g.title) },
			words: []string{"'Leads'!C4:D4", "merged"},
			aside: func(n int) bool { return n == 2 }, lacks: map[string]bool{"phone": true},
		},
		"a column protected": {
			do: func(g hands) error {
				return g.paper.Protect(g.title, 0, at("status"), 0, at("status"))
			},
			undo:  func(g hands) error { return g.paper.Unprotect(g.title) },
			words: []string{"'Leads'!G1:G1000", "protected cell or object"},
			aside: func(n int) bool { return n == 3 || n >= 8 }, lacks: map[string]bool{"status": true},
		},
		"a row protected": {
			do:    func(g hands) error { return g.paper.Protect(g.title, 5, 1, 5, len(tabs[leadsTab].columns)) },
			undo:  func(g hands) error { return g.paper.Unprotect(g.title) },
			words: []string{"'Leads'!A5:N5"},
			aside: func(n int) bool { return n == 3 },
		},
		"the column of keys protected": {
			do:    func(g hands) error { return g.paper.Protect(g.title, 0, 1, 0, 1) },
			undo:  func(g hands) error { return g.paper.Unprotect(g.title) },
			words: []string{"'Leads'!A1:A1000"},
			aside: func(n int) bool { return n >= 8 },
		},
		"the tab protected": {
			do:    func(g hands) error { return g.paper.Protect(g.title, 0, 0, 0, 0) },
			undo:  func(g hands) error { return g.paper.Unprotect(g.title) },
			words: []string{"'Leads'!A1:N1000", "protected cell or object"},
			aside: func(n int) bool { return n == 3 || n >= 8 },
		},
		"a list of allowed values that has not ours": {
			do:    func(g hands) error { return g.paper.Restrict(g.title, at("status"), "prospect") },
			undo:  func(g hands) error { return g.paper.Unrestrict(g.title) },
			words: []string{"column status", "violates the data validation rules"},
			aside: func(n int) bool { return n == 3 || n >= 8 }, lacks: map[string]bool{"status": true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			r.put(t, leads(0, 8))
			r.handle(t, w)
			g := r.paper.page(t, "Leads")
			g.must(c.do(g))
			r.put(t, changed(3))
			r.put(t, leads(8, 10))
			r.put(t, map[string]any{"optout.33639980001": contracts.OptOut{Phone: "+33639980001", OptedOutAt: born, Keyword: "STOP"}})
			r.settle(t, w)
			r.wantIncident(t, "sheets-place-leads-", c.words...)
			if got := len(r.paper.page(t, "Opt-outs").table()); got != 1 {
				t.Errorf("%d rows in another tab", got)
			}
			if got := r.paper.page(t, "Incidents").table(); len(got) != 1 || !strings.Contains(got[0]["reason"], c.words[0]) {
				t.Errorf("incidents in the sheet: %v", got)
			}
			rows := map[string]map[string]string{}
			for _, row := range g.table() {
				rows[row["id"]] = row
			}
			for n := range 10 {
				row := rows[lead(n).ID]
				for _, h := range []string{"name", "phone", "email", "status"} {
					if row[h] == "" && !(c.aside(n) && (c.lacks == nil || c.lacks[h])) {
						t.Errorf("lead %d has no %s: %v", n, h, row)
					}
				}
			}
			if row := rows[lead(3).ID]; !c.aside(3) && row["status"] != "client" {
				t.Errorf("the changed row: %v", row)
			}
			// Another audit, or another process, finds the same place and nothing more.
			r.clock = r.clock.Add(time.Minute)
			r.audit(t, w)
			r.settle(t, r.writer(t))
			r.wantIncident(t, "sheets-place-leads-", c.words...)
			r.clock = r.clock.Add(time.Minute)
			if open := r.openIncidents(t); open[0].Count != 1 {
				t.Errorf("counted %d times", open[0].Count)
			}

			g.must(c.undo(g))
			r.settle(t, w)
			r.wantNoIncident(t)
			r.mustMatch(t)
		})
	}
}

// Incidents about the tab of incidents never breed.
func TestBarredIncidents(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(g hands) error{
		"tab":    func(g hands) error { return g.paper.Protect(g.title, 0, 0, 0, 0) },
		"column": func(g hands) error { return g.paper.Protect(g.title, 0, 5, 0, 5) },
		"values": func(g hands) error { return g.paper.Restrict(g.title, 5, "nothing") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			r.put(t, leads(0, 3))
			r.handle(t, w)
			g := r.paper.page(t, "Incidents")
			g.must(do(g))
			for n := range 5 {
				r.put(t, map[string]any{fmt.Sprintf("incident.sms-%d", n): contracts.Incident{ID: fmt.Sprintf("sms-%d", n), At: born, Reason: "x", Consumer: "sms", ResolvedAt: born}})
				r.settle(t, w)
			}
			for range 3 {
				r.settle(t, w)
			}
			r.wantIncident(t, "sheets-place-incidents-")
			if r.newest > 40 {
				t.Errorf("the bucket is at revision %d", r.newest)
			}
			g.must(g.paper.Unprotect(g.title))
			g.must(g.paper.Unrestrict(g.title))
			for range 2 {
				r.settle(t, w)
			}
			r.wantNoIncident(t)
			r.mustMatch(t)
		})
	}
}

// All tabs are protected: nothing can be written, and nothing is lost.
func TestAllProtected(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 3))
	r.handle(t, w)
	for _, title := range r.paper.Tabs() {
		if err := r.paper.Protect(title, 0, 0, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	r.put(t, changed(1))
	for _, err := range w.Handle(t.Context(), r.changes(t)) {
		if err != nil {
			t.Log(err) // the whole spreadsheet waits
		}
	}
	for _, title := range r.paper.Tabs() {
		if err := r.paper.Unprotect(title); err != nil {
			t.Fatal(err)
		}
	}
	r.settle(t, w)
	r.mustMatch(t)
}

func TestLetterCaseOfATitle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 3))
	r.handle(t, w)
	for _, title := range []string{"LEADS", "leads"} {
		if err := r.paper.RenameTab("Leads", title); err != nil {
			t.Fatal(err)
		}
		r.put(t, changed(1))
		r.put(t, leads(3, 5))
		r.handle(t, w)
		r.settle(t, r.writer(t))
		r.mustMatch(t)
	}
	if n := len(r.paper.Tabs()); n != 6 {
		t.Errorf("%d tabs: %v", n, r.paper.Tabs())
	}
}

// A column of check boxes has FALSE in every row to the end of the grid; new leads come
// right below the last one all the same.
func TestCheckboxes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 3))
	r.handle(t, w)
	g := r.paper.page(t, "Leads")
	col := g.notes()
	g.must(g.paper.Checkboxes(g.title, col+1))
	r.put(t, leads(3, 5))
	r.handle(t, w)
	r.put(t, leads(5, 6))
	r.settle(t, r.writer(t))
	for n := range 6 {
		if got := g.text(n+1, 0); got != lead(n).ID {
			t.Errorf("row %d has %q", n+2, got)
		}
	}
	if n := len(g.cells()); n != 1000 {
		t.Errorf("%d rows in use", n)
	}
}

// A person's own column may have a title of ours, left of ours: it is never written.
func TestForeignColumnWithOurTitle(t *testing.T) {
	t.Parallel()
	for _, title := range tabs[leadsTab].names() {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			w := r.writer(t)
			r.put(t, leads(0, 4))
			r.handle(t, w)
			g := r.paper.page(t, "Leads")
			at := slices.Index(g.cells()[0], title)
			for _, col := range []int{0, at} {
				g.insertColumn(col)
				g.set(0, col, title)
				for row := range 4 {
					g.set(row+1, col, fmt.Sprintf("mine %d", row))
				}
				r.put(t, changed(2))
				r.put(t, leads(4+col, 5+col))
				r.handle(t, w)
				r.settle(t, r.writer(t))
				for row := range 4 {
					if got := g.text(row+1, col); got != fmt.Sprintf("mine %d", row) {
						t.Errorf("column %d, row %d: %q", col, row, got)
					}
				}
				rows := r.paper.page(t, "Leads").cells()
				for _, want := range []string{lead(2).Name, lead(4 + col).Name, lead(4 + col).Email} {
					if !slices.ContainsFunc(rows, func(row []string) bool { return slices.Contains(row, want) }) {
						t.Errorf("%s is missing", want)
					}
				}
				g.must(g.paper.DeleteColumn(g.title, col+1))
			}
			r.settle(t, w)
			r.mustMatch(t)
		})
	}
}

// formerSheet is a spreadsheet as the first release left it, with a person's column.
func formerSheet(tb testing.TB, r *rig, n int) {
	tb.Helper()
	ctx := context.Background()
	w := r.writer(tb)
	old := map[int][]string{
		leadsTab: {"id", "created_at", "name", "phone", "email", "form_id", "status", "opted_out_at", "customer_id", "updated_at", "assigned to"},
		clientsTab: {"customer_id", "name", "email", "phone", "lead_id", "status", "access", "subscription_id", "price_id", "amount", "currency",
			"current_period_end", "failed_attempts", "updated_at"},
		churnTab:     {"subscription_id", "customer_id", "email", "price_id", "amount", "currency", "ended_at", "reason"},
		optOutsTab:   {"phone", "opted_out_at", "keyword", "confirmed_at", "provider_blocked_at"},
		incidentsTab: {"id", "at", "severity", "consumer", "reason", "action"},
	}
	if _, err := w.client.list(ctx); err != nil {
		tb.Fatal(err)
	}
	for t, tab := range tabs {
		if _, err := r.paper.addTab(w, tab.title); err != nil {
			tb.Fatal(err)
		}
		g := r.paper.page(tb, tab.title)
		for c, h := range old[t] {
			g.set(0, c, h)
		}
	}
	g := r.paper.page(tb, "Leads")
	for i := range n {
		l := lead(i)
		for c, text := range []string{"'" + l.ID, "'" + l.CreatedAt.Format(time.RFC3339), l.Name, "'" + l.Phone, l.Email, l.FormID, string(l.Status), "", "", "'2026-02-01T08:30:00Z", fmt.Sprintf("person %d", i)} {
			g.set(i+1, c, text)
		}
	}
}

// The sheet of the first release is brought forward, and people's columns stay.
func TestFormerSheetIsBroughtForward(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	formerSheet(t, r, 6)
	r.put(t, leads(0, 8))
	r.put(t, map[string]any{"churn.sub_1": contracts.Churn{SubscriptionID: "sub_1", CustomerID: "cus_1", Amount: new(int64(5990)), Currency: "eur", EndedAt: born}})
	w := r.writer(t)
	r.settle(t, w)
	r.mustMatch(t)
	g := r.paper.page(t, "Leads")
	want := []string{"id", "created_at", "name", "phone", "email", "form_id", "status", "opted_out_at", "customer_id", "updated_at", "assigned to",
		"answers", "platform", "campaign_id", "ad_id"}
	if got := g.cells()[0]; !slices.Equal(got, want) {
		t.Errorf("header %q", got)
	}
	for n := range 6 {
		if got := g.text(n+1, 10); got != fmt.Sprintf("person %d", n) || g.text(n+1, 0) != lead(n).ID {
			t.Errorf("row %d: %q beside %q", n+2, got, g.text(n+1, 0))
		}
		if got := g.text(n+1, 1); got != person(lead(n).CreatedAt, "") {
			t.Errorf("row %d was created at %q", n+2, got)
		}
	}
	looks := r.paper.Looks("Leads")
	if looks.Bold || looks.Filter || looks.Frozen != 0 {
		t.Errorf("the looks of a sheet that exists were changed: %+v", looks)
	}
	if got := r.paper.page(t, "Churn").table()[0]; got["amount"] != "59.9" {
		t.Errorf("churn: %v", got)
	}
}

// A tab that we create is one that a person likes to work in.
func TestLooksOfANewTab(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 2))
	r.handle(t, w)
	for i, tab := range tabs {
		looks := r.paper.Looks(tab.title)
		if !looks.Bold || !looks.Filter || looks.Frozen != 1 || len(looks.Formats) != len(tab.columns) {
			t.Errorf("%s: %+v", tab.title, looks)
		}
		for c, h := range tabs[i].columns {
			want := ""
			if h.kind == moment {
				want = "DATE_TIME"
			} else if h.name == "amount" {
				want = "NUMBER"
			}
			if looks.Formats[c] != want {
				t.Errorf("%s: column %s has the format %q", tab.title, h.name, looks.Formats[c])
			}
		}
	}
}

func TestTimeZoneOfThePerson(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 2))
	r.handle(t, w)
	for zone, want := range map[string]string{"America/New_York": "2026-02-01 03:30:00", "Asia/Kolkata": "2026-02-01 14:00:00", "GMT+02:00": "2026-02-01 10:30:00"} {
		r.paper.SetTimeZone(zone)
		r.audit(t, w)
		if got := r.paper.page(t, "Leads").text(1, 1); got != want {
			t.Errorf("%s: %s, want %s", zone, got, want)
		}
	}
}

// Stripe's minor units: https://docs.stripe.com/currencies.
func TestAmounts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		amount   int64
		currency string
		want     float64
	}{{5990, "eur", 59.9}, {500, "jpy", 500}, {5120, "kwd", 5.12}, {500, "isk", 5}, {500, "ugx", 5}, {1, "usd", 0.01}, {0, "eur", 0}, {-250, "usd", -2.5}, {123456789012, "vnd", 123456789012}} {
		if got := major(&c.amount, c.currency); got != c.want {
			t.Errorf("%d %s: %v, want %v", c.amount, c.currency, got, c.want)
		}
	}
	if major(nil, "eur") != "" {
		t.Error("an amount that is not known")
	}
}

// The limit of cells is said before it is met; when it is met, rows that exist go on.
func TestTenMillionCells(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 998))
	r.handle(t, w)
	if err := r.paper.Grow("Sheet1", 9_100_000/26-1000, 0); err != nil {
		t.Fatal(err)
	}
	r.audit(t, w)
	r.handle(t, w)
	r.wantIncident(t, "sheets-place-leads-", "9.1 of the 10 million cells")
	if err := r.paper.Grow("Sheet1", 750_000/26, 0); err != nil {
		t.Fatal(err)
	}
	for room := 1; room > 0; { // until nothing fits
		if r.paper.Grow("Sheet1", room, 0) != nil {
			break
		}
	}
	r.put(t, changed(5))
	r.put(t, leads(998, 1002))
	r.settle(t, w)
	var words string
	for _, i := range r.openIncidents(t) {
		words += i.Reason + "\n"
	}
	if !strings.Contains(words, "above the limit of 10000000 cells") || !strings.Contains(words, "9.1 of the 10 million") {
		t.Errorf("incidents: %s", words)
	}
	g := r.paper.page(t, "Leads")
	if got := g.text(6, 6); got != "client" {
		t.Errorf("a row that exists: %q", got)
	}
	g.must(g.paper.DeleteTab("Sheet1"))
	r.settle(t, w)
	r.settle(t, w)
	r.mustMatch(t)
	r.wantNoIncident(t)
}

// The column of keys is gone: the rows are known by what is in them, all of them.
func TestColumnOfKeysDeleted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	w := r.writer(t)
	r.put(t, leads(0, 60))
	r.handle(t, w)
	r.mustMatch(t)
	if err := r.paper.DeleteColumn("Leads", 1); err != nil {
		t.Fatal(err)
	}
	r.audit(t, w)
	r.mustMatch(t)
}
