/* Of behaviours.c, those that are held out from the second judge: see labels.json. */

struct timer {
	struct timer *next;
	char *argument;
	unsigned long due;
};

/* Those that are cancelled are taken out of the list, and forgotten. */
ALONE static void leak_cancelled_timers(void)
{
	static struct timer *timers;
	struct timer *timer = fill(sizeof(struct timer));
	timer->argument = fill(90);
	timer->due = tick + TICKS * (1 + chance(5));
	timer->next = timers;
	timers = timer;
	for (struct timer **place = &timers; *place;) {
		timer = *place;
		if (chance(900) == 0) {
			*place = timer->next;
		} else if (timer->due <= tick) {
			*place = timer->next;
			free(timer->argument);
			free(timer);
		} else {
			place = &timer->next;
		}
	}
}

/* Read again every six seconds; of each setting the old name is forgotten when it
 * has a comment. */
ALONE static void leak_by_reloading(void)
{
	static struct setting { char *name, *value; } *settings[40];
	if (tick % (6 * TICKS) != 0)
		return;
	for (int i = 0; i < 40; i++) {
		if (settings[i]) {
			if (i % 4)
				free(settings[i]->name);
			free(settings[i]->value);
			free(settings[i]);
		}
		settings[i] = fill(sizeof(struct setting));
		settings[i]->name = fill(30 + i);
		settings[i]->value = fill(100 + i);
	}
}

/* What is given back goes to a list that nobody takes from. */
ALONE static void leak_by_a_pool_that_is_not_reused(void)
{
	static void *returned[1 << 16];
	static unsigned count;
	char *object = fill(700);
	if (tick % 2 == 0)
		sink = returned[count++ % (1 << 16)] = object;
	else
		free(object);
}

/* Load that swells and ebbs, and a hundredth of it that stays. */
ALONE static void leak_beneath_waves(void)
{
	static struct held { char *block; unsigned long until; } held[8192];
	static unsigned next;
	unsigned phase = tick % (30 * TICKS);
	unsigned wanted = phase < 15 * TICKS ? phase / 100 : (30 * TICKS - phase) / 100;
	for (unsigned i = 0; i <= wanted; i++, next++) {
		struct held *one = &held[next % 8192];
		if (one->block && chance(100))
			free(one->block);
		one->block = fill(400);
		one->until = tick + TICKS * (3 + chance(10));
	}
	for (unsigned i = 0; i < 8192; i++)
		if (held[i].block && held[i].until <= tick) {
			if (chance(100))
				free(held[i].block);
			held[i].block = NULL;
		}
}

static void ring_of_buffers(void)
{
	static char *ring[64];
	unsigned bytes = 1000 + chance(9000);
	free(ring[tick % 64]);
	ring[tick % 64] = fill(bytes);
}

/* It doubles for the first 40 seconds; then as many come as go. */
static void table_that_is_rehashed(void)
{
	static char **table;
	static unsigned room, used;
	if (used < 2000) {
		if (used == room) {
			room = room ? 2 * room : 64;
			table = realloc(table, room * sizeof *table);
		}
		table[used++] = fill(120);
		return;
	}
	unsigned place = chance(used);
	free(table[place]);
	table[place] = fill(120);
}

static void entries_of_20_seconds(void)
{
	static struct entry { char *text; unsigned long born; } entries[4096];
	static unsigned next, oldest;
	for (; oldest < next && entries[oldest % 4096].born + 20 * TICKS < tick; oldest++)
		free(entries[oldest % 4096].text);
	for (unsigned i = chance(3); i > 0; i--, next++) {
		unsigned bytes = 200 + chance(200);
		entries[next % 4096] = (struct entry){ fill(bytes), tick };
	}
}

/* 300 parts of a program, each set up when it is first asked for. */
static void set_up_at_first_use(void)
{
	static char *parts[300];
	unsigned part = popular(300);
	if (!parts[part])
		parts[part] = fill(800);
}

static void reconnects(void)
{
	static struct connection { char *parts[3]; unsigned long until; } all[50];
	for (unsigned i = 0; i < 50; i++)
		if (all[i].until <= tick) {
			for (int part = 0; part < 3; part++) {
				free(all[i].parts[part]);
				all[i].parts[part] = fill(500 + 1000 * part);
			}
			all[i].until = tick + TICKS * (15 + chance(30));
		}
}

static void last_thousand_edits(void)
{
	static char *edits[1000];
	if (tick % 2)
		return;
	unsigned bytes = 20 + chance(300);
	free(edits[tick / 2 % 1000]);
	edits[tick / 2 % 1000] = fill(bytes);
}
