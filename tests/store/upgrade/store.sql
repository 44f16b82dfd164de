BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE corrections (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	image_id VARCHAR(64) NOT NULL, 
	group_name TEXT NOT NULL, 
	tags JSON NOT NULL, 
	"by" TEXT NOT NULL, 
	why TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	withdrawn_at DATETIME, 
	FOREIGN KEY(image_id) REFERENCES images (image_id)
);
INSERT INTO "corrections" VALUES(1,'509b0d4641a7c3ba088ffa28559d1f57207ea980447bc1773b1d406d788386ee','color','["white","red"]','anna','seen','2026-10-03 14:00:00.000000',NULL);
INSERT INTO "corrections" VALUES(2,'7a11ab94584454526cb0479a2e3b96aa5e1c9659290fd7d4cb5dbd28dce7d318','color','["red"]','anna','seen','2026-10-03 14:00:00.000000','2026-10-03 16:24:00.000000');
CREATE TABLE coverage (
	bundle_digest VARCHAR(64) NOT NULL, 
	seq BIGINT NOT NULL, 
	PRIMARY KEY (bundle_digest)
)
 WITHOUT ROWID

;
INSERT INTO "coverage" VALUES('8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28',7);
CREATE TABLE days (
	day VARCHAR(10) NOT NULL, 
	revision INTEGER NOT NULL, 
	published INTEGER NOT NULL, 
	PRIMARY KEY (day)
)
 WITHOUT ROWID

;
INSERT INTO "days" VALUES('2026-10-02',10,2);
INSERT INTO "days" VALUES('2026-10-03',1,0);
CREATE TABLE files (
	file_id VARCHAR(64) NOT NULL, 
	locator TEXT NOT NULL, 
	token TEXT NOT NULL, 
	image_id VARCHAR(64), 
	state VARCHAR(8) NOT NULL, 
	reason TEXT, 
	first_seen DATETIME NOT NULL, 
	last_seen DATETIME NOT NULL, 
	PRIMARY KEY (file_id), 
	CONSTRAINT files_state CHECK (state IN ('new', 'tagged', 'rejected', 'gone'))
)
 WITHOUT ROWID

;
INSERT INTO "files" VALUES('0d871a2a79901b647419e0d6add375cd9a025094665fdf6fd4bc5ecaaca91c88','file:///inbox/%FF%FE.jpg','1-1-1','990cb8ebd0afb7150da453a213036a92f2c05e091df0d803e62d257ea7796c27','tagged',NULL,'2026-10-02 02:00:00.000000','2026-10-02 02:00:00.000000');
INSERT INTO "files" VALUES('1b0e4cc9bf19c8525454bd0ee943f162a145a64108c1284f3c79c385a4244e20','file:///inbox/a.jpg','1-1-1','509b0d4641a7c3ba088ffa28559d1f57207ea980447bc1773b1d406d788386ee','tagged',NULL,'2026-10-02 02:00:00.000000','2026-10-02 02:00:00.000000');
INSERT INTO "files" VALUES('4c42dd9d3cadd5f091a49249d36738f82004835d9fd20d43cbc9a866ef364b11','file:///inbox/secret.jpg','1-1-1','6c94cf0219da032784488cb69ddf36e4e038b47a1e6ca5f2e5cf772d17129e6d','rejected','forgotten: what was known of it is erased; `shoetagger retry` with its name asks anew','2026-10-02 02:00:00.000000','2026-10-02 02:00:00.000000');
INSERT INTO "files" VALUES('66a1eb8ac31bf0d2854799a0b8c5e92fd684834a095b3a057bfbe4fa0cdd2708','file:///inbox/c.jpg','2-2-2','cd2a7381e884690e4d520b8bd1814722fb5564f891af40705c44cc75fd4bc55a','tagged',NULL,'2026-10-02 02:00:00.000000','2026-10-03 02:00:00.000000');
INSERT INTO "files" VALUES('84f439055b215494e17c902e3e5ca88095a8f0ff6c75363204b5e163d7aa5c25','file:///inbox/%C3%B6%20%27x%27%20%25.jpg','1-1-1','32256f643765f957209c41f6c873afc9f4d434304c29108c2639024693ef372b','tagged',NULL,'2026-10-02 02:00:00.000000','2026-10-02 02:00:00.000000');
INSERT INTO "files" VALUES('9b928c10e8525d10253dd0e4242f1a03d533293e9ee853bfc35808776c7def43','file:///inbox/late.jpg','1-1-1',NULL,'new',NULL,'2026-10-03 02:00:00.000000','2026-10-03 02:00:00.000000');
INSERT INTO "files" VALUES('9e7c300f7cf4994be6bb4b2f3d2082e2835c46fb27df17d060255af601124be6','file:///inbox/left.jpg','1-1-1','8b9c187b88d1355acf9448ea28907ef2edf3b0a7996b534c982f01ca66629bff','gone',NULL,'2026-10-02 02:00:00.000000','2026-10-02 02:00:00.000000');
INSERT INTO "files" VALUES('b2e4036756f61a0b858e0be682495001764ea20817f8ed9c2834d5545e98eadf','file:///inbox/bad.jpg','1-1-1','e13ddb9419668b2a863317298ce6fe77149e786a81283ba53c62feeb9e66841d','rejected','truncated','2026-10-02 02:00:00.000000','2026-10-02 02:00:00.000000');
INSERT INTO "files" VALUES('b72016b7ce774e27f7132696ba4cdcfafc909030fdec61cb453ee3105ff544e8','file:///inbox/copy%20of%20a.jpg','1-1-1','509b0d4641a7c3ba088ffa28559d1f57207ea980447bc1773b1d406d788386ee','tagged',NULL,'2026-10-02 02:00:00.000000','2026-10-02 02:00:00.000000');
INSERT INTO "files" VALUES('ccf73ecb6bda6564c56b28d048a9a080457474a8b15421c53b5f0b22d5e0c061','file:///inbox/link.jpg','1-1-1',NULL,'rejected','a symbolic link out of the inbox','2026-10-02 02:00:00.000000','2026-10-02 02:00:00.000000');
INSERT INTO "files" VALUES('f086b35c5dbcf3149a653838259f010b59b29983b1085d44141db80bd5662cbe','file:///inbox/b.jpg','1-1-1','7a11ab94584454526cb0479a2e3b96aa5e1c9659290fd7d4cb5dbd28dce7d318','tagged',NULL,'2026-10-02 02:00:00.000000','2026-10-02 02:00:00.000000');
CREATE TABLE forgotten (
	image_id VARCHAR(64) NOT NULL, 
	forgotten_at DATETIME NOT NULL, 
	PRIMARY KEY (image_id)
)
 WITHOUT ROWID

;
INSERT INTO "forgotten" VALUES('6c94cf0219da032784488cb69ddf36e4e038b47a1e6ca5f2e5cf772d17129e6d','2026-10-02 06:48:00.000000');
CREATE TABLE images (
	image_id VARCHAR(64) NOT NULL, 
	width INTEGER NOT NULL, 
	height INTEGER NOT NULL, 
	first_seen DATETIME NOT NULL, 
	day VARCHAR(10) NOT NULL, 
	seq BIGINT NOT NULL, 
	replaced BOOLEAN NOT NULL, 
	PRIMARY KEY (image_id)
)
 WITHOUT ROWID

;
INSERT INTO "images" VALUES('32256f643765f957209c41f6c873afc9f4d434304c29108c2639024693ef372b',640,480,'2026-10-02 02:00:00.000000','2026-10-02',1,0);
INSERT INTO "images" VALUES('509b0d4641a7c3ba088ffa28559d1f57207ea980447bc1773b1d406d788386ee',640,480,'2026-10-02 02:00:00.000000','2026-10-02',2,0);
INSERT INTO "images" VALUES('7a11ab94584454526cb0479a2e3b96aa5e1c9659290fd7d4cb5dbd28dce7d318',640,480,'2026-10-02 02:00:00.000000','2026-10-02',4,0);
INSERT INTO "images" VALUES('8b9c187b88d1355acf9448ea28907ef2edf3b0a7996b534c982f01ca66629bff',640,480,'2026-10-02 02:00:00.000000','2026-10-02',5,0);
INSERT INTO "images" VALUES('92b3b1c43b181905f01d7a411cfec1c08134886791277f535dd62c0a56d53294',640,480,'2026-10-02 02:00:00.000000','2026-10-02',6,1);
INSERT INTO "images" VALUES('990cb8ebd0afb7150da453a213036a92f2c05e091df0d803e62d257ea7796c27',3,4,'2026-10-02 02:00:00.000000','2026-10-02',7,0);
INSERT INTO "images" VALUES('cd2a7381e884690e4d520b8bd1814722fb5564f891af40705c44cc75fd4bc55a',640,480,'2026-10-03 02:00:00.000000','2026-10-03',8,0);
CREATE TABLE ledger (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	group_name TEXT NOT NULL, 
	from_digest VARCHAR(64), 
	to_digest VARCHAR(64), 
	kind VARCHAR(10) NOT NULL, 
	state VARCHAR(10) NOT NULL, 
	"by" TEXT NOT NULL, 
	why TEXT NOT NULL, 
	data_revision TEXT, 
	mlflow_run TEXT, 
	created_at DATETIME NOT NULL, 
	done_at DATETIME, 
	CONSTRAINT ledger_kind CHECK (kind IN ('promote', 'rollback', 'manual', 'remove')), 
	CONSTRAINT ledger_state CHECK (state IN ('pending', 'done', 'cancelled')), 
	FOREIGN KEY(from_digest) REFERENCES versions (digest), 
	FOREIGN KEY(to_digest) REFERENCES versions (digest)
);
INSERT INTO "ledger" VALUES(1,'color',NULL,'8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','promote','done','airflow','better by 0.02','0123abcd','b5263b6dac214f6e8a7b1723328d3a87','2026-10-01 14:00:00.000000','2026-10-01 14:00:00.000000');
INSERT INTO "ledger" VALUES(2,'color','8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','ad79a85fa8471959a5c07f464aef8a59a0fee19a5aac60fb3329cde66a088c9b','promote','done','anna, asked by airflow','approved (looks right); better by 0.02','0123abcd','23bb55e968cf481680f3c5d69b5b71e5','2026-10-02 09:12:00.000000','2026-10-02 09:12:00.000000');
INSERT INTO "ledger" VALUES(3,'color','ad79a85fa8471959a5c07f464aef8a59a0fee19a5aac60fb3329cde66a088c9b','8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','rollback','done','anna','tags sandals as boots','0123abcd','b5263b6dac214f6e8a7b1723328d3a87','2026-10-02 11:36:00.000000','2026-10-02 11:36:00.000000');
INSERT INTO "ledger" VALUES(4,'color','8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','ad79a85fa8471959a5c07f464aef8a59a0fee19a5aac60fb3329cde66a088c9b','promote','cancelled','anna','rejected (not yet)','0123abcd','23bb55e968cf481680f3c5d69b5b71e5','2026-10-02 12:48:00.000000','2026-10-02 12:48:00.000000');
INSERT INTO "ledger" VALUES(5,'color','8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','ad79a85fa8471959a5c07f464aef8a59a0fee19a5aac60fb3329cde66a088c9b','promote','done','airflow','better by 0.02','0123abcd','23bb55e968cf481680f3c5d69b5b71e5','2026-10-02 14:00:00.000000','2026-10-02 14:00:00.000000');
INSERT INTO "ledger" VALUES(6,'style',NULL,'9dfd6982ed6253021f9bc37dff966f3240662f540a2d17e6233c2b2844bcf176','promote','cancelled','airflow','first',NULL,NULL,'2026-10-02 16:24:00.000000','2026-10-02 16:24:00.000000');
INSERT INTO "ledger" VALUES(7,'style',NULL,'9dfd6982ed6253021f9bc37dff966f3240662f540a2d17e6233c2b2844bcf176','promote','pending','airflow','the first of its group','0123abcd','9a310aef812a42a781ce1099a5eee585','2026-10-03 23:36:00.000000',NULL);
CREATE TABLE predictions (
	bundle_digest VARCHAR(64) NOT NULL, 
	image_id VARCHAR(64) NOT NULL, 
	scores JSON NOT NULL, 
	tags JSON NOT NULL, 
	run_id TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (bundle_digest, image_id), 
	FOREIGN KEY(bundle_digest) REFERENCES versions (digest)
)
 WITHOUT ROWID

;
INSERT INTO "predictions" VALUES('8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','32256f643765f957209c41f6c873afc9f4d434304c29108c2639024693ef372b','[0.75,0.125,0.25]','["black"]','d9e1a5d7ddc1495c9e9f78d01476e0fb','2026-10-02 02:00:00.000000');
INSERT INTO "predictions" VALUES('8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','509b0d4641a7c3ba088ffa28559d1f57207ea980447bc1773b1d406d788386ee','[0.75,0.125,0.25]','["black"]','d9e1a5d7ddc1495c9e9f78d01476e0fb','2026-10-02 02:00:00.000000');
INSERT INTO "predictions" VALUES('8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','7a11ab94584454526cb0479a2e3b96aa5e1c9659290fd7d4cb5dbd28dce7d318','[0.75,0.125,0.25]','["black"]','d9e1a5d7ddc1495c9e9f78d01476e0fb','2026-10-02 02:00:00.000000');
INSERT INTO "predictions" VALUES('8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','8b9c187b88d1355acf9448ea28907ef2edf3b0a7996b534c982f01ca66629bff','[0.75,0.125,0.25]','["black"]','d9e1a5d7ddc1495c9e9f78d01476e0fb','2026-10-02 02:00:00.000000');
INSERT INTO "predictions" VALUES('8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','92b3b1c43b181905f01d7a411cfec1c08134886791277f535dd62c0a56d53294','[0.75,0.125,0.25]','["black"]','d9e1a5d7ddc1495c9e9f78d01476e0fb','2026-10-02 02:00:00.000000');
INSERT INTO "predictions" VALUES('8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','990cb8ebd0afb7150da453a213036a92f2c05e091df0d803e62d257ea7796c27','[0.75,0.125,0.25]','["black"]','d9e1a5d7ddc1495c9e9f78d01476e0fb','2026-10-02 02:00:00.000000');
INSERT INTO "predictions" VALUES('9dfd6982ed6253021f9bc37dff966f3240662f540a2d17e6233c2b2844bcf176','509b0d4641a7c3ba088ffa28559d1f57207ea980447bc1773b1d406d788386ee','[0.875,0.125]','["boot"]','0fa3f6e34484461a861256b8baf0d1fd','2026-10-03 02:00:00.000000');
INSERT INTO "predictions" VALUES('9dfd6982ed6253021f9bc37dff966f3240662f540a2d17e6233c2b2844bcf176','7a11ab94584454526cb0479a2e3b96aa5e1c9659290fd7d4cb5dbd28dce7d318','[0.875,0.125]','["boot"]','0fa3f6e34484461a861256b8baf0d1fd','2026-10-03 02:00:00.000000');
INSERT INTO "predictions" VALUES('9dfd6982ed6253021f9bc37dff966f3240662f540a2d17e6233c2b2844bcf176','cd2a7381e884690e4d520b8bd1814722fb5564f891af40705c44cc75fd4bc55a','[0.875,0.125]','["boot"]','0fa3f6e34484461a861256b8baf0d1fd','2026-10-03 02:00:00.000000');
INSERT INTO "predictions" VALUES('ad79a85fa8471959a5c07f464aef8a59a0fee19a5aac60fb3329cde66a088c9b','509b0d4641a7c3ba088ffa28559d1f57207ea980447bc1773b1d406d788386ee','[0.25,0.125,0.25]','["white"]','0fa3f6e34484461a861256b8baf0d1fd','2026-10-03 02:00:00.000000');
INSERT INTO "predictions" VALUES('ad79a85fa8471959a5c07f464aef8a59a0fee19a5aac60fb3329cde66a088c9b','cd2a7381e884690e4d520b8bd1814722fb5564f891af40705c44cc75fd4bc55a','[0.25,0.125,0.25]','["white"]','0fa3f6e34484461a861256b8baf0d1fd','2026-10-03 02:00:00.000000');
CREATE TABLE runs (
	run_id VARCHAR(32) NOT NULL, 
	kind TEXT NOT NULL, 
	started_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	state TEXT NOT NULL, 
	pins JSON NOT NULL, 
	counts JSON NOT NULL, rates JSON, alarms JSON, 
	PRIMARY KEY (run_id)
)
 WITHOUT ROWID

;
INSERT INTO "runs" VALUES('0fa3f6e34484461a861256b8baf0d1fd','night','2026-10-03 02:00:00.000000','2026-10-03 02:14:24.000000','done','{"color":"ad79a85fa8471959a5c07f464aef8a59a0fee19a5aac60fb3329cde66a088c9b","style":"9dfd6982ed6253021f9bc37dff966f3240662f540a2d17e6233c2b2844bcf176"}','{"tagged":1,"retagged":1}','{"black":[0,1]}','["tag black: 0% of the new pictures, usually 100%"]');
INSERT INTO "runs" VALUES('3d2d38a7f8f24a35b78a665e25b9eba5','manual','2026-10-04 02:00:00.000000',NULL,'running','{"color":"ad79a85fa8471959a5c07f464aef8a59a0fee19a5aac60fb3329cde66a088c9b"}','{}',NULL,NULL);
INSERT INTO "runs" VALUES('d9e1a5d7ddc1495c9e9f78d01476e0fb','night','2026-10-02 02:00:00.000000','2026-10-02 02:14:24.000000','done','{"color":"8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28"}','{"tagged":8,"rejected":2}','{"black":[7,7],"red":[0,7]}','[]');
CREATE TABLE versions (
	digest VARCHAR(64) NOT NULL, 
	group_name TEXT NOT NULL, 
	tags JSON NOT NULL, 
	registry_name TEXT, 
	version TEXT, 
	registered_at DATETIME NOT NULL, 
	PRIMARY KEY (digest)
)
 WITHOUT ROWID

;
INSERT INTO "versions" VALUES('8dbad73b79910182006c11dcfba6290088a0f8c7e6d590f2fc833b4e6723bd28','color','["black","white","red"]','shoetagger-color','1','2026-10-01 02:00:00.000000');
INSERT INTO "versions" VALUES('9dfd6982ed6253021f9bc37dff966f3240662f540a2d17e6233c2b2844bcf176','style','["boot","sandal"]','shoetagger-style','1','2026-10-01 02:00:00.000000');
INSERT INTO "versions" VALUES('ad79a85fa8471959a5c07f464aef8a59a0fee19a5aac60fb3329cde66a088c9b','color','["black","white","red"]','shoetagger-color','2','2026-10-01 02:00:00.000000');
CREATE INDEX files_image_id ON files (image_id, state);
CREATE INDEX files_new ON files (file_id) WHERE state = 'new';
CREATE INDEX files_rejected ON files (first_seen, file_id) WHERE state = 'rejected';
CREATE INDEX files_gone ON files (file_id) WHERE state = 'gone';
CREATE UNIQUE INDEX images_seq ON images (seq);
CREATE INDEX images_first_seen ON images (first_seen, image_id);
CREATE INDEX images_replaced ON images (image_id) WHERE replaced;
CREATE UNIQUE INDEX ledger_one_pending ON ledger (group_name) WHERE state = 'pending';
CREATE INDEX corrections_image ON corrections (image_id, group_name);
CREATE UNIQUE INDEX corrections_one_in_force ON corrections (group_name, image_id) WHERE withdrawn_at IS NULL;
CREATE INDEX runs_started_at ON runs (started_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('ledger',7);
INSERT INTO "sqlite_sequence" VALUES('corrections',2);
COMMIT;
