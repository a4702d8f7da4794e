package chaos

import (
	"encoding/json"
	"strings"

	"leadpipe/contracts"
)

// sheet: one row for everybody, where it belongs, and no other.
func (c *checker) sheet() {
	leads, clients, churn, optouts := map[string]*person{}, map[string]*person{}, map[string]*person{}, map[string]*person{}
	for _, p := range c.plan.people {
		leads[p.lead] = p
		if p.buys {
			clients[p.customer] = p
			if p.churns {
				churn[p.subscription] = p
			}
		}
		if p.stops {
			optouts[p.phone] = p
		}
	}
	c.tab("Leads", leads, func(p *person, cell func(string) string) {
		var l contracts.Lead
		if json.Unmarshal(c.records[contracts.KeyLead(p.lead)], &l) == nil {
			same(c, p, "the row's status in Leads", cell("status"), string(l.Status))
		}
		same(c, p, "the row's phone in Leads", cell("phone"), p.phone)
		same(c, p, "the row's name in Leads", cell("name"), p.name)
	})
	c.tab("Clients", clients, func(p *person, cell func(string) string) {
		status, access, _, _ := p.standing()
		same(c, p, "the row's status in Clients", cell("status"), string(status))
		same(c, p, "the row's access in Clients", cell("access"), string(access))
		same(c, p, "the row's lead_id in Clients", cell("lead_id"), p.lead)
	})
	c.tab("Churn", churn, func(p *person, cell func(string) string) {
		same(c, p, "the row's customer_id in Churn", cell("customer_id"), p.customer)
	})
	c.tab("Opt-outs", optouts, func(p *person, cell func(string) string) {
		same(c, p, "the row's keyword in Opt-outs is set", cell("keyword") != "", true)
	})
}

// tab compares a tab's rows with the people that it should have one of.
func (c *checker) tab(title string, people map[string]*person, look func(p *person, cell func(string) string)) {
	rows := c.w.google.Rows(title)
	column := map[string]int{}
	seen := map[string]int{}
	for i, row := range rows {
		if i == 0 {
			for j, name := range row {
				column[name] = j
			}
			continue
		}
		if len(row) == 0 || strings.Join(row, "") == "" {
			continue
		}
		p := people[row[0]]
		if seen[row[0]]++; seen[row[0]] == 2 {
			c.add(twice, p, "%s has two rows of %s", title, row[0])
		}
		if p == nil {
			c.add(wrong, nil, "%s has a row of %q, who does not belong there", title, row[0])
			continue
		}
		look(p, func(name string) string {
			j, ok := column[name]
			if !ok || j >= len(row) {
				return ""
			}
			return row[j]
		})
	}
	for key, p := range people {
		if seen[key] == 0 {
			c.add(lost, p, "%s has no row of %s", title, key)
		}
	}
}
